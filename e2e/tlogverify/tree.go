package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Of c2sp.org/tlog-tiles: a tile holds 256 hashes, and stands for eight levels of the tree.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// An entry of this log is 66 bytes: version, class, label (32), commitment (32).
const (
	entryVersion  = 1
	entryClassMax = 6
	entryBytes    = 66
)

// lengthBytes is the length of an entry's length, in a bundle.
const lengthBytes = 2

// checkEntry refuses what cannot be an entry of this log.
func checkEntry(entry []byte) error {
	switch {
	case len(entry) != entryBytes:
		return fmt.Errorf("it has %d bytes instead of %d", len(entry), entryBytes)
	case entry[0] != entryVersion:
		return fmt.Errorf("its version is %d instead of %d", entry[0], entryVersion)
	case entry[1] > entryClassMax:
		return fmt.Errorf("its class is %d, which does not exist", entry[1])
	default:
		return nil
	}
}

// verifiedTree is a tree that was computed from its entries, from the left to the right. Every tile that is
// complete was compared with the one that the log serves.
type verifiedTree struct {
	src  source
	size int64
	// levels holds, for each level of tiles, the tile that is being filled.
	levels []level
	// sums has the SHA-256 hash of every tile that was compared: what is read again has to be the same.
	sums map[tlog.Tile][sha256.Size]byte
}

type level struct {
	tile   int64  // its index
	hashes []byte // of 0 to 255 complete subtrees
}

// verifyTree reads all entries of the log, computes all tiles and the root from them, and refuses the log if it
// serves another tile, or if its checkpoint has another root.
func verifyTree(src source, tree tlog.Tree) (*verifiedTree, error) {
	v := &verifiedTree{src: src, size: tree.N, sums: map[tlog.Tile][sha256.Size]byte{}}
	for n := int64(0); n<<tileHeight < tree.N; n++ {
		if err := v.addBundle(tlog.Tile{H: tileHeight, L: -1, N: n, W: v.width(0, n)}); err != nil {
			return nil, err
		}
	}
	// What is left is the right edge: the last tile of each level, unless that is full.
	for l := range v.levels {
		if len(v.levels[l].hashes) > 0 {
			if err := v.compare(l); err != nil {
				return nil, err
			}
		}
	}
	root, err := v.root()
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, fmt.Errorf("the entries make the root %s, and the checkpoint says %s", root, tree.Hash)
	}
	return v, nil
}

// width is how many hashes a tile has in this tree.
func (v *verifiedTree) width(level int, tile int64) int {
	left := v.size>>(tileHeight*level) - tile<<tileHeight
	if left > tileWidth {
		return tileWidth
	}
	return int(left)
}

// addBundle reads a bundle, and adds its entries to the tree.
func (v *verifiedTree) addBundle(bundle tlog.Tile) error {
	data, err := readTile(v.src, bundle, lengthBytes+entryBytes)
	if err != nil {
		return err
	}
	for i := 0; i < bundle.W; i++ {
		item := data[i*(lengthBytes+entryBytes):][:lengthBytes+entryBytes]
		entry := item[lengthBytes:]
		err := checkEntry(entry)
		if length := binary.BigEndian.Uint16(item); length != entryBytes {
			err = fmt.Errorf("its length is %d instead of %d", length, entryBytes)
		}
		if err != nil {
			return fmt.Errorf("entry %d, in %s, is refused: %w", bundle.N<<tileHeight+int64(i), tilePath(bundle), err)
		}
		if err := v.add(0, tlog.RecordHash(entry)); err != nil {
			return err
		}
	}
	return nil
}

// add puts the next hash into the tile of its level. A tile that is full is compared, and its root is the next
// hash of the level above.
func (v *verifiedTree) add(l int, hash tlog.Hash) error {
	if l == len(v.levels) {
		v.levels = append(v.levels, level{})
	}
	v.levels[l].hashes = append(v.levels[l].hashes, hash[:]...)
	if len(v.levels[l].hashes) < tileWidth*tlog.HashSize {
		return nil
	}
	if err := v.compare(l); err != nil {
		return err
	}
	root := subtreeRoot(v.levels[l].hashes)
	v.levels[l] = level{tile: v.levels[l].tile + 1, hashes: v.levels[l].hashes[:0]}
	return v.add(l+1, root)
}

// compare refuses the log if it serves another tile than the one that was computed.
func (v *verifiedTree) compare(l int) error {
	hashes := v.levels[l].hashes
	tile := tlog.Tile{H: tileHeight, L: l, N: v.levels[l].tile, W: len(hashes) / tlog.HashSize}
	served, err := readTile(v.src, tile, tlog.HashSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(served, hashes) {
		return fmt.Errorf("%s is not what the entries hash to", tilePath(tile))
	}
	v.sums[tile] = sha256.Sum256(served)
	return nil
}

// subtreeRoot is the root of the complete subtree above these hashes, whose number is a power of two.
func subtreeRoot(hashes []byte) tlog.Hash {
	if len(hashes) == tlog.HashSize {
		var hash tlog.Hash
		copy(hash[:], hashes)
		return hash
	}
	half := len(hashes) / 2
	return tlog.NodeHash(subtreeRoot(hashes[:half]), subtreeRoot(hashes[half:]))
}

// root is the root of the tree, computed from the right edge. It reads nothing from the log.
func (v *verifiedTree) root() (tlog.Hash, error) {
	if v.size == 0 {
		return emptyRoot, nil
	}
	return tlog.TreeHash(v.size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, index := range indexes {
			tile := tlog.TileForIndex(tileHeight, index)
			hash, err := tlog.HashFromTile(tile, v.levels[tile.L].hashes, index)
			if err != nil {
				return nil, err
			}
			hashes = append(hashes, hash)
		}
		return hashes, nil
	}))
}

// ReadHashes returns hashes of the tree, by the numbers that the package tlog gives them, from the tiles that
// the log serves. So a verified tree is a tlog.HashReader, for proofs.
func (v *verifiedTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, index := range indexes {
		tile := tlog.TileForIndex(tileHeight, index)
		tile.W = v.width(tile.L, tile.N)
		data, err := readTile(v.src, tile, tlog.HashSize)
		if err != nil {
			return nil, err
		}
		if v.sums[tile] != sha256.Sum256(data) {
			return nil, fmt.Errorf("%s changed while it was being verified", tilePath(tile))
		}
		hash, err := tlog.HashFromTile(tile, data, index)
		if err != nil {
			return nil, errors.New("the tiles do not make a tree")
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}
