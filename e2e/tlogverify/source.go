package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// requestSecondsMax bounds one request, from its start to the last byte of the answer. The largest answer is a
// checkpoint of half a megabyte.
const requestSecondsMax = 60

// errMissing says that a log does not have what was asked for.
var errMissing = errors.New("it does not exist")

// source is where a log's files are read from. Nothing that comes from it is trusted.
type source interface {
	// read returns a whole file. It is an error if that is longer than the limit; errMissing if there is none.
	read(path string, bytesMax int64) ([]byte, error)
}

func newSource(dir, prefix string) (source, error) {
	if dir != "" {
		return directory(dir), nil
	}
	address, err := url.Parse(prefix)
	if err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "" {
		return nil, fmt.Errorf("%q is not an http or https address", prefix)
	}
	client := &http.Client{Timeout: requestSecondsMax * time.Second}
	return &website{strings.TrimRight(prefix, "/"), client}, nil
}

type directory string

func (d directory) read(path string, bytesMax int64) ([]byte, error) {
	data, err := readFile(filepath.Join(string(d), filepath.FromSlash(path)), bytesMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMissing
	}
	return data, err
}

type website struct {
	prefix string
	client *http.Client
}

func (w *website) read(path string, bytesMax int64) ([]byte, error) {
	// Go's client asks for gzip, and takes that off by itself. The limit is for what is left then.
	response, err := w.client.Get(w.prefix + "/" + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return readAll(response.Body, bytesMax)
	case http.StatusNotFound, http.StatusGone:
		return nil, errMissing
	default:
		return nil, fmt.Errorf("the server answered %d", response.StatusCode)
	}
}

// readFile reads a file that must not be longer than the limit.
func readFile(path string, bytesMax int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAll(file, bytesMax)
}

func readAll(in io.Reader, bytesMax int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, bytesMax+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > bytesMax {
		return nil, fmt.Errorf("it is longer than %d bytes", bytesMax)
	}
	return data, nil
}

// readTile reads a tile of hashes, or a bundle of entries (which tlog calls the level -1), of exactly the width
// that is asked for. Each item of it has the same length. When a partial one is gone, the full one, which the
// log has grown in the meantime, is cut.
func readTile(src source, tile tlog.Tile, itemBytes int) ([]byte, error) {
	bytesNeeded := tile.W * itemBytes
	data, err := src.read(tilePath(tile), int64(bytesNeeded))
	if errors.Is(err, errMissing) && tile.W < tileWidth {
		full := tile
		full.W = tileWidth
		var fullErr error
		data, fullErr = src.read(tilePath(full), int64(tileWidth*itemBytes))
		if !errors.Is(fullErr, errMissing) {
			tile, err = full, fullErr
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", tilePath(tile), err)
	}
	if len(data) != tile.W*itemBytes {
		return nil, fmt.Errorf("%s has %d bytes instead of %d", tilePath(tile), len(data), tile.W*itemBytes)
	}
	return data[:bytesNeeded], nil
}

// tilePath is where a tile is served: c2sp.org/tlog-tiles. Go's checksum database, from which the package comes,
// has the height in the path, and another name for entries.
func tilePath(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	if tile.L < 0 {
		path = "entries" + strings.TrimPrefix(path, "data")
	}
	return "tile/" + path
}
