package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpointBytesMax bounds a checkpoint: a hundred signatures of the largest kind in use (ML-DSA-44) fit.
const checkpointBytesMax = 1 << 19

// treeSizeMax bounds the size of a tree, so that no size that somebody signed makes the numbers run over.
const treeSizeMax = 1 << 40

// checkpoint is what a log says about its tree: c2sp.org/tlog-checkpoint.
type checkpoint struct {
	signed       []byte // as it was read, with its signatures
	origin       string
	tree         tlog.Tree     // size and root
	cosignatures []cosignature // of witnesses of the policy; in the order of the policy
}

type cosignature struct {
	witness string // its name in the policy
	time    int64  // POSIX seconds, as the witness says
}

// print writes what the checkpoint says.
func (c *checkpoint) print(out io.Writer) {
	fmt.Fprintf(out, "origin %s\nsize %d\nroot %s\n", c.origin, c.tree.N, c.tree.Hash)
	for _, s := range c.cosignatures {
		fmt.Fprintf(out, "witness %s time %d\n", s.witness, s.time)
	}
	if len(c.cosignatures) == 0 {
		fmt.Fprintln(out, "unwitnessed")
	}
}

// openCheckpoint reads a checkpoint, which has to be signed by the log of the policy whose name is its origin,
// and by a quorum of witnesses. Signatures by keys that are not in the policy are ignored.
func openCheckpoint(p *policy, signed []byte) (*checkpoint, error) {
	// A bad signature by any key of the policy is an error here, even if the others would be enough.
	opened, err := note.Open(signed, p.keys)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint is refused: %w", err)
	}
	c, err := parseCheckpoint(opened.Text)
	if err != nil {
		return nil, err
	}
	c.signed = signed
	signatures := map[note.Verifier][]byte{} // without the id in front; of each key the first one, which was checked
	for _, s := range opened.Sigs {
		key, err := p.keys.Verifier(s.Name, s.Hash)
		if err != nil {
			return nil, err
		}
		decoded, err := base64.StdEncoding.DecodeString(s.Base64)
		// Of all spellings that are decoded to the same bytes, only one is accepted.
		if err != nil || base64.StdEncoding.EncodeToString(decoded) != s.Base64 {
			return nil, fmt.Errorf("the checkpoint's signature by %q is not proper base64", s.Name)
		}
		signatures[key] = decoded[4:]
	}
	isSigned := false
	for _, key := range p.logs {
		isSigned = isSigned || signatures[key] != nil && key.Name() == c.origin
	}
	if !isSigned {
		return nil, fmt.Errorf("the checkpoint of %q is not signed by a log of that name in the policy", c.origin)
	}
	names := map[string]bool{}
	for _, w := range p.witnesses {
		if signature := signatures[w.key]; signature != nil {
			names[w.name] = true
			time := int64(binary.BigEndian.Uint64(signature))
			c.cosignatures = append(c.cosignatures, cosignature{w.name, time})
		}
	}
	if !p.isSatisfied(names) {
		return nil, fmt.Errorf("the checkpoint is cosigned by %d witnesses of the policy, which make no quorum", len(names))
	}
	return c, nil
}

// parseCheckpoint reads the text of a checkpoint: origin, size, root, and perhaps lines that only the log
// understands.
func parseCheckpoint(text string) (*checkpoint, error) {
	lines := strings.Split(text, "\n")
	// The text ends with a line end, so the last piece is empty; no other may be.
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return nil, errors.New("the checkpoint has fewer than three lines")
	}
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			return nil, errors.New("the checkpoint has an empty line")
		}
	}
	size, err := parseDecimal(lines[1])
	if err != nil {
		return nil, fmt.Errorf("the checkpoint's size is refused: %w", err)
	}
	if size > treeSizeMax {
		return nil, fmt.Errorf("the checkpoint's size is %d, more than this program takes", size)
	}
	root, err := parseHash(lines[2])
	if err != nil {
		return nil, fmt.Errorf("the checkpoint's root is refused: %w", err)
	}
	if size == 0 && root != emptyRoot {
		return nil, errors.New("the checkpoint's tree is empty, and its root is not that of an empty tree")
	}
	return &checkpoint{origin: lines[0], tree: tlog.Tree{N: size, Hash: root}}, nil
}

// emptyRoot is the root of a tree without entries, by RFC 6962. (The package tlog has another one.)
var emptyRoot = tlog.Hash(sha256.Sum256(nil))

// parseHash reads a hash in the one base64 spelling that is canonical.
func parseHash(text string) (tlog.Hash, error) {
	hash, err := tlog.ParseHash(text)
	if err != nil || hash.String() != text {
		return tlog.Hash{}, fmt.Errorf("%q is not a hash", text)
	}
	return hash, nil
}
