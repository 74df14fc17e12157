package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// proofBytesMax bounds a proof: a checkpoint, the few hashes of a path, and other people's extra data.
const proofBytesMax = 1 << 20

// proofFirstLine is the first line of every proof.
const proofFirstLine = "c2sp.org/tlog-proof@v1"

// checkProof checks that an entry is in the log, by a proof of c2sp.org/tlog-proof whose checkpoint satisfies
// the policy. It returns the entry's index, and the checkpoint.
func checkProof(p *policy, text, entry []byte) (int64, *checkpoint, error) {
	// The first empty line ends the proof's own part.
	top, signed, isWhole := strings.Cut(string(text), "\n\n")
	lines := strings.Split(top, "\n")
	if !isWhole || lines[0] != proofFirstLine {
		return 0, nil, fmt.Errorf("the proof does not begin with the line %q, or has no checkpoint", proofFirstLine)
	}
	lines = lines[1:]
	if len(lines) > 0 && strings.HasPrefix(lines[0], "extra ") {
		// Nobody signed what is in it, so nothing is done with it.
		if _, err := base64.StdEncoding.Strict().DecodeString(lines[0][len("extra "):]); err != nil {
			return 0, nil, errors.New("the proof's extra data is not base64")
		}
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "index ") {
		return 0, nil, errors.New("the proof does not name an index")
	}
	index, err := parseDecimal(lines[0][len("index "):])
	if err != nil {
		return 0, nil, fmt.Errorf("the proof's index is refused: %w", err)
	}
	var path tlog.RecordProof
	for _, line := range lines[1:] {
		hash, err := parseHash(line)
		if err != nil {
			return 0, nil, fmt.Errorf("the proof's path is refused: %w", err)
		}
		path = append(path, hash)
	}
	head, err := openCheckpoint(p, []byte(signed))
	if err != nil {
		return 0, nil, err
	}
	if tlog.CheckRecord(path, head.tree.N, head.tree.Hash, index, tlog.RecordHash(entry)) != nil {
		return 0, nil, fmt.Errorf("the proof does not show that the leaf is entry %d of the tree of %d", index, head.tree.N)
	}
	return index, head, nil
}
