package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// A log made for tests. It is written from the specifications, and uses nothing of the program or of the package
// tlog: roots and tiles come from the recursive definition of RFC 6962.

const testOrigin = "log.example/test"

// testKey signs; its secret is made from its name and a number.
type testKey struct {
	name   string
	kind   byte
	secret ed25519.PrivateKey
}

func newTestKey(name string, kind byte, number int) testKey {
	seed := sha256.Sum256([]byte(fmt.Sprint(name, kind, number)))
	return testKey{name, kind, ed25519.NewKeyFromSeed(seed[:])}
}

func (k testKey) public() []byte {
	return append([]byte{k.kind}, k.secret.Public().(ed25519.PublicKey)...)
}

func (k testKey) id() []byte {
	sum := sha256.Sum256([]byte(k.name + "\n" + string(k.public())))
	return sum[:4]
}

func (k testKey) String() string {
	return fmt.Sprintf("%s+%x+%s", k.name, k.id(), base64.StdEncoding.EncodeToString(k.public()))
}

// line is the signature line over a text; the time is for witnesses.
func (k testKey) line(text string, time uint64) string {
	signature := k.id()
	if k.kind == 0x04 {
		signature = binary.BigEndian.AppendUint64(signature, time)
		text = fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)
	}
	return rawLine(k.name, append(signature, ed25519.Sign(k.secret, []byte(text))...))
}

func rawLine(name string, signature []byte) string {
	return "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(signature) + "\n"
}

var (
	logKey   = newTestKey(testOrigin, 0x01, 0)
	witness1 = newTestKey("witness.example/1", 0x04, 1)
	witness2 = newTestKey("witness.example/2", 0x04, 2)
	witness3 = newTestKey("witness.example/3", 0x04, 3)
	stranger = newTestKey("witness.example/stranger", 0x04, 4)
)

// testPolicy asks for two of three witnesses.
var testPolicy = fmt.Sprintf("# A comment.\n\nlog %s https://log.example/test/\n"+
	"witness one %s\n\twitness two\t%s https://witness.example/\nwitness three %s\n"+
	"group enough 2 one two three\nquorum enough\n", logKey, witness1, witness2, witness3)

const testTime = 1700000000

// testEntry is entry i of the log; a log with another salt has other entries.
func testEntry(salt string, i int) []byte {
	label := sha256.Sum256([]byte(fmt.Sprint("label", salt, i)))
	commitment := sha256.Sum256([]byte(fmt.Sprint("commitment", salt, i)))
	return append(append([]byte{1, byte(i % 7)}, label[:]...), commitment[:]...)
}

func testEntries(salt string, size int) [][]byte {
	var entries [][]byte
	for i := 0; i < size; i++ {
		entries = append(entries, testEntry(salt, i))
	}
	return entries
}

// treeHash is the Merkle Tree Hash of RFC 6962, section 2.1.
func treeHash(entries [][]byte) []byte {
	var sum [sha256.Size]byte
	switch n := len(entries); n {
	case 0:
		sum = sha256.Sum256(nil)
	case 1:
		sum = sha256.Sum256(append([]byte{0}, entries[0]...))
	default:
		k := split(n)
		sum = sha256.Sum256(append(append([]byte{1}, treeHash(entries[:k])...), treeHash(entries[k:])...))
	}
	return sum[:]
}

// split is the largest power of two below n.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

// auditPath is the path of RFC 6962, section 2.1.1.
func auditPath(index int, entries [][]byte) [][]byte {
	if len(entries) == 1 {
		return nil
	}
	if k := split(len(entries)); index < k {
		return append(auditPath(index, entries[:k]), treeHash(entries[k:]))
	} else {
		return append(auditPath(index-k, entries[k:]), treeHash(entries[:k]))
	}
}

// memory is a source: files by path.
type memory map[string][]byte

func (m memory) read(path string, bytesMax int64) ([]byte, error) {
	data, exists := m[path]
	if !exists {
		return nil, errMissing
	}
	return readAll(bytes.NewReader(data), bytesMax)
}

// newLog makes all files of a log: its tiles and bundles by c2sp.org/tlog-tiles, and its checkpoint, signed by
// the log and these keys.
func newLog(entries [][]byte, keys ...testKey) memory {
	files := memory{}
	for level, span := 0, 1; span <= len(entries); level, span = level+1, span*256 {
		hashes := len(entries) / span
		for first := 0; first < hashes; first += 256 {
			width := hashes - first
			if width > 256 {
				width = 256
			}
			var tile, bundle []byte
			for i := first; i < first+width; i++ {
				tile = append(tile, treeHash(entries[i*span:(i+1)*span])...)
				bundle = append(append(bundle, 0, byte(len(entries[i]))), entries[i]...)
			}
			files[testPath(fmt.Sprint(level), first/256, width)] = tile
			if level == 0 {
				files[testPath("entries", first/256, width)] = bundle
			}
		}
	}
	files["checkpoint"] = newCheckpoint(entries, append([]testKey{logKey}, keys...)...)
	return files
}

func testPath(level string, index, width int) string {
	path := fmt.Sprintf("tile/%s/%03d", level, index)
	if index > 999 {
		path = fmt.Sprintf("tile/%s/x%03d/%03d", level, index/1000, index%1000)
	}
	if width < 256 {
		path += fmt.Sprintf(".p/%d", width)
	}
	return path
}

// checkpointText is the text of a checkpoint, without signatures.
func checkpointText(entries [][]byte) string {
	return fmt.Sprintf("%s\n%d\n%s\n", testOrigin, len(entries), base64.StdEncoding.EncodeToString(treeHash(entries)))
}

func newCheckpoint(entries [][]byte, keys ...testKey) []byte {
	return signed(checkpointText(entries), keys...)
}

func signed(text string, keys ...testKey) []byte {
	note := text + "\n"
	for i, key := range keys {
		note += key.line(text, testTime+uint64(i))
	}
	return []byte(note)
}

// newProof is a .tlog-proof of an entry.
func newProof(entries [][]byte, index int, extra string) string {
	proof := fmt.Sprintf("c2sp.org/tlog-proof@v1\n%sindex %d\n", extra, index)
	for _, hash := range auditPath(index, entries) {
		proof += base64.StdEncoding.EncodeToString(hash) + "\n"
	}
	return proof + "\n" + string(newCheckpoint(entries, logKey, witness1, witness2))
}

// with is the log with one file replaced; nil takes it away.
func (m memory) with(path string, data []byte) memory {
	changed := memory{}
	for name, content := range m {
		changed[name] = content
	}
	delete(changed, path)
	if data != nil {
		changed[path] = data
	}
	return changed
}

// write puts the log into a directory.
func (m memory) write(t *testing.T, dir string) {
	t.Helper()
	for path, data := range m {
		writeFile(t, filepath.Join(dir, path), data)
	}
}

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// program runs the whole program in a directory of its own.
type program struct {
	*testing.T
	dir, policy, remember string
}

func newProgram(t *testing.T, policy string) *program {
	t.Helper()
	dir := t.TempDir()
	return &program{t, dir, writeFile(t, filepath.Join(dir, "policy"), []byte(policy)), filepath.Join(dir, "remember")}
}

// put writes a log into a fresh directory.
func (p *program) put(log memory) string {
	p.Helper()
	dir, err := os.MkdirTemp(p.dir, "log-*")
	if err != nil {
		p.Fatal(err)
	}
	log.write(p.T, dir)
	return dir
}

// accepts runs a command that has to succeed, and returns what it prints.
func (p *program) accepts(arguments ...string) string {
	p.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(p.complete(arguments), &stdout, &stderr); code != exitVerified || stderr.Len() > 0 {
		p.Fatalf("%v: exit code %d: %s", arguments, code, stderr.String())
	}
	return stdout.String()
}

// refuses runs a command that has to be refused, with these words in its one sentence, and nothing printed.
func (p *program) refuses(words string, arguments ...string) {
	p.Helper()
	var stdout, stderr bytes.Buffer
	code := run(p.complete(arguments), &stdout, &stderr)
	sentence := stderr.String()
	if code != exitRefused || stdout.Len() > 0 {
		p.Fatalf("%v: exit code %d, printed %q", arguments, code, stdout.String())
	}
	if !strings.Contains(sentence, words) || strings.Count(sentence, "\n") != 1 {
		p.Fatalf("%v: said %q instead of %q", arguments, sentence, words)
	}
}

func (p *program) complete(arguments []string) []string {
	return append([]string{arguments[0], "--policy", p.policy}, arguments[1:]...)
}

// decodeLine is what a signature line holds: the id and the signature.
func decodeLine(t *testing.T, line string) []byte {
	t.Helper()
	fields := strings.Fields(line)
	raw, err := base64.StdEncoding.DecodeString(fields[len(fields)-1])
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// tileOf is the tile of a level, an index and a width.
func tileOf(numbers [3]int) tlog.Tile {
	return tlog.Tile{H: 8, L: numbers[0], N: int64(numbers[1]), W: numbers[2]}
}
