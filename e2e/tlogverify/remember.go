package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// loadRemembered reads the checkpoint that was kept at the last run; nil if there is none yet. The file is
// trusted as the policy is: its signatures were checked before it was kept, and are not checked again, so that
// a change of keys in the policy does not make anybody throw the memory away.
func loadRemembered(path string) (*checkpoint, error) {
	signed, err := readFile(path, checkpointBytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the remembered checkpoint cannot be read: %w", err)
	}
	// Without any key, a note in good order is reported as one that nobody signed.
	_, err = note.Open(signed, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return nil, errors.New("the remembered checkpoint is damaged")
	}
	last, err := parseCheckpoint(unverified.Note.Text)
	if err != nil {
		return nil, fmt.Errorf("the remembered checkpoint is damaged: %w", err)
	}
	return last, nil
}

// refuseOlder compares two checkpoints without looking at the tree.
func refuseOlder(last, head *checkpoint) error {
	switch {
	case head.origin != last.origin:
		return fmt.Errorf("the remembered checkpoint is of another log, %q", last.origin)
	case head.tree.N < last.tree.N:
		return fmt.Errorf("the log was rolled back: it had %d entries, and now has %d", last.tree.N, head.tree.N)
	case head.tree.N == last.tree.N && head.tree.Hash != last.tree.Hash:
		return fmt.Errorf("the log forked: its tree of %d entries had the root %s, and now has %s",
			last.tree.N, last.tree.Hash, head.tree.Hash)
	default:
		return nil
	}
}

// refuseInconsistent refuses a tree that does not begin with the remembered one, which is not larger. The proof
// is made from the log's tiles.
func refuseInconsistent(last, head tlog.Tree, tiles tlog.HashReader) error {
	if last.N == 0 {
		return nil // Every tree begins with the empty one.
	}
	proof, err := tlog.ProveTree(head.N, last.N, tiles)
	if err != nil {
		return fmt.Errorf("no proof of consistency can be made: %w", err)
	}
	if tlog.CheckTree(proof, head.N, head.Hash, last.N, last.Hash) != nil {
		return fmt.Errorf("the log forked: its tree of %d entries does not begin with the remembered tree of %d",
			head.N, last.N)
	}
	return nil
}

// saveRemembered replaces the remembered checkpoint. At every moment the file is the old or the new one, whole.
func saveRemembered(path string, signed []byte) error {
	if err := replaceFile(path, signed); err != nil {
		return fmt.Errorf("the checkpoint cannot be remembered: %w", err)
	}
	return nil
}

func replaceFile(path string, data []byte) error {
	folder := filepath.Dir(path)
	file, err := os.CreateTemp(folder, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // Nothing is left there when all went well.
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return err
	}
	// The new name, too, has to be on the disk.
	opened, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer opened.Close()
	return opened.Sync()
}
