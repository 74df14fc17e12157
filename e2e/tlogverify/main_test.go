package main

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sizes around everything that changes in the shape of a tree.
var testSizes = []int{0, 1, 2, 255, 256, 257, 600}

func TestAccepted(t *testing.T) {
	p := newProgram(t, testPolicy)
	// In the order of size, so that each tree has to be consistent with the one before. The last one has three
	// levels of tiles.
	last := -1
	for _, size := range append(testSizes, 70000) {
		entries := testEntries("", size)
		log := newLog(entries, witness3, witness1)
		dir := p.put(log)
		want := strings.Replace(checkpointText(entries), testOrigin+"\n", "origin "+testOrigin+"\nsize ", 1)
		want = strings.Replace(want, fmt.Sprintf("\nsize %d\n", size), fmt.Sprintf("\nsize %d\nroot ", size), 1) +
			fmt.Sprintf("witness one time %d\nwitness three time %d\n", testTime+2, testTime+1)
		if got := p.accepts("checkpoint", "--dir", dir); got != want {
			t.Errorf("size %d: printed %q instead of %q", size, got, want)
		}
		tiles := 0
		for path := range log {
			if strings.HasPrefix(path, "tile/") && !strings.HasPrefix(path, "tile/entries/") {
				tiles++
			}
		}
		want += fmt.Sprintf("checked %d entries, %d tiles\n", size, tiles)
		if got := p.accepts("log", "--dir", dir); got != want {
			t.Errorf("size %d: printed %q instead of %q", size, got, want)
		}
		if last < 0 {
			want += "remembered for the first time\n"
		} else {
			want += fmt.Sprintf("consistent with the remembered size %d\n", last)
		}
		if got := p.accepts("log", "--remember", p.remember, "--dir", dir); got != want {
			t.Errorf("size %d: printed %q instead of %q", size, got, want)
		}
		last = size
	}
}

// The shape of a tree of 70,000 entries is given in c2sp.org/tlog-tiles: this is a check of the test's own log.
func TestShapeOfTheSpecification(t *testing.T) {
	log := newLog(testEntries("", 70000))
	for prefix, want := range map[string]int{"tile/0/": 274, "tile/1/": 2, "tile/2/": 1, "tile/entries/": 274} {
		count := 0
		for path := range log {
			if strings.HasPrefix(path, prefix) {
				count++
			}
		}
		if count != want {
			t.Errorf("%s: %d tiles instead of %d", prefix, count, want)
		}
	}
	for _, path := range []string{"tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"} {
		if log[path] == nil {
			t.Errorf("%s is missing", path)
		}
	}
}

// mustPolicy is the policy of a text that is in order.
func mustPolicy(t *testing.T, text string) *policy {
	t.Helper()
	p, err := parsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refusesTree checks that a log is refused, with a sentence that names the file that is wrong.
func refusesTree(t *testing.T, log source, checkpoint []byte, words string) {
	t.Helper()
	head, err := openCheckpoint(mustPolicy(t, testPolicy), checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verifyTree(log, head.tree); err == nil || !strings.Contains(err.Error(), words) {
		t.Fatalf("said %v instead of naming %s", err, words)
	}
}

func TestEveryByteOfTheCheckpoint(t *testing.T) {
	policy := mustPolicy(t, testPolicy)
	for _, size := range testSizes {
		// Just enough witnesses, and last a key that nobody knows.
		good := newCheckpoint(testEntries("", size), logKey, witness1, witness2, stranger)
		known := bytes.Index(good, []byte("\u2014 "+stranger.name))
		if _, err := openCheckpoint(policy, good); err != nil {
			t.Fatal(err)
		}
		for i := range good {
			for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
				bad := append([]byte(nil), good...)
				bad[i] ^= flip
				if _, err := openCheckpoint(policy, bad); err == nil && i < known {
					t.Fatalf("size %d: byte %d changed by %d is accepted: %q", size, i, flip, bad)
				}
			}
		}
		for length := 0; length < known; length++ {
			if _, err := openCheckpoint(policy, good[:length]); err == nil {
				t.Fatalf("size %d: cut to %d bytes is accepted", size, length)
			}
		}
	}
}

func TestEveryByteOfTilesAndBundles(t *testing.T) {
	for _, size := range testSizes {
		log := newLog(testEntries("", size), witness1, witness2)
		head, err := openCheckpoint(mustPolicy(t, testPolicy), log["checkpoint"])
		if err != nil {
			t.Fatal(err)
		}
		for path, data := range log {
			if path == "checkpoint" {
				continue
			}
			for i := range data {
				flip := byte(1 << (i % 8))
				data[i] ^= flip
				_, err := verifyTree(log, head.tree)
				data[i] ^= flip
				// A wrong bundle shows in its entry, or in the tile of its hashes.
				tile := strings.Replace(path, "entries", "0", 1)
				if err == nil || !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), tile) {
					t.Fatalf("size %d: byte %d of %s: %v", size, i, path, err)
				}
			}
		}
		if _, err := verifyTree(log, head.tree); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrongLengthsAndMissingFiles(t *testing.T) {
	p := newProgram(t, testPolicy)
	for _, size := range testSizes {
		log := newLog(testEntries("", size), witness1, witness2)
		for path, data := range log {
			p.refuses("cannot be read: it does not exist", "log", "--dir", p.put(log.with(path, nil)))
			if path == "checkpoint" {
				continue // Its lengths are in the test above.
			}
			checkpoint := log["checkpoint"]
			n := len(data)
			for _, length := range []int{0, 1, n / 2, n - 68, n - 66, n - 33, n - 32, n - 31, n - 2, n - 1} {
				if 0 <= length && length < n {
					refusesTree(t, log.with(path, append([]byte{}, data[:length]...)), checkpoint, path)
				}
			}
			for _, more := range []int{1, 32, 68, 256 * 68} {
				longer := append(append([]byte{}, data...), make([]byte, more)...)
				refusesTree(t, log.with(path, longer), checkpoint, path)
			}
		}
	}
	p.refuses("cannot be read", "log", "--dir", filepath.Join(p.dir, "nowhere"))
	log := newLog(testEntries("", 1), witness1, witness2)
	long := append(log["checkpoint"], bytes.Repeat([]byte("x"), checkpointBytesMax)...)
	p.refuses("it is longer than", "log", "--dir", p.put(log.with("checkpoint", long)))
}

// Entries and tiles that belong to each other, and not to the checkpoint.
func TestOtherRoot(t *testing.T) {
	for _, size := range testSizes[1:] {
		log := newLog(testEntries("other", size), witness1, witness2)
		refusesTree(t, log, newCheckpoint(testEntries("", size), logKey, witness1, witness2), "and the checkpoint says")
	}
}

// A log may take a partial tile away once it has the full one.
func TestFullTilesInsteadOfPartialOnes(t *testing.T) {
	p := newProgram(t, testPolicy)
	grown := newLog(testEntries("", 70000))
	for _, size := range []int{1, 255, 257, 600} {
		small := newLog(testEntries("", size), witness1, witness2)
		log := grown.with("checkpoint", small["checkpoint"])
		// Of the level above, the grown log still has a partial tile of another width.
		for path, data := range small {
			if strings.HasPrefix(path, "tile/1/") {
				log = log.with(path, data)
			}
		}
		p.accepts("log", "--dir", p.put(log))
		last := size / 256
		for _, kind := range []string{"0", "entries"} {
			full := testPath(kind, last, 256)
			refusesTree(t, log.with(full, grown[full][:len(grown[full])-1]), log["checkpoint"], full)
			refusesTree(t, log.with(full, append(grown[full][:len(grown[full]):len(grown[full])], 0)), log["checkpoint"], full)
			other := append([]byte{}, grown[full]...)
			other[5] ^= 1
			refusesTree(t, log.with(full, other), log["checkpoint"], testPath("0", last, size%256))
			// A partial one that is there is not passed over because it is wrong.
			partial := testPath(kind, last, size%256)
			wrong := append([]byte{}, small[partial]...)
			wrong[5] ^= 1
			refusesTree(t, log.with(partial, wrong), log["checkpoint"], testPath("0", last, size%256))
		}
	}
}

// A log that signs what is no entry is refused, even though all hashes are right.
func TestEntriesOfAnotherForm(t *testing.T) {
	change := func(position int, value byte) []byte {
		entry := testEntry("", 1)
		entry[position] = value
		return entry
	}
	for words, entry := range map[string][]byte{
		"its version is 0":      change(0, 0),
		"its version is 2":      change(0, 2),
		"its class is 7":        change(1, 7),
		"its class is 255":      change(1, 255),
		"has 203 bytes":         testEntry("", 1)[:entryBytes-1],
		"longer than 204 bytes": append(testEntry("", 1), 0),
	} {
		entries := testEntries("", 3)
		entries[1] = entry
		log := newLog(entries, witness1, witness2)
		refusesTree(t, log, log["checkpoint"], words)
	}
	// Lengths that make the bundle as long as it should be.
	entries := testEntries("", 3)
	entries[0], entries[1] = entries[0][:65], append(entries[1], 0)
	log := newLog(entries, witness1, witness2)
	refusesTree(t, log, log["checkpoint"], "its length is 65")
}

func TestRollbackAndFork(t *testing.T) {
	p := newProgram(t, testPolicy)
	dirs := map[string]string{}
	dir := func(salt string, common, size int) string {
		key := fmt.Sprint(salt, common, " ", size)
		if dirs[key] == "" {
			entries := append(testEntries("", common), testEntries(salt, size)[common:]...)
			dirs[key] = p.put(newLog(entries, witness1, witness2))
		}
		return dirs[key]
	}
	remember := func(dir string) []byte {
		os.Remove(p.remember)
		p.accepts("log", "--remember", p.remember, "--dir", dir)
		kept, err := os.ReadFile(p.remember)
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	refuses := func(words string, kept []byte, dir string) {
		t.Helper()
		p.refuses(words, "log", "--remember", p.remember, "--dir", dir)
		if after, err := os.ReadFile(p.remember); err != nil || !bytes.Equal(after, kept) {
			t.Fatal("the memory changed")
		}
	}
	for _, old := range testSizes {
		for _, now := range testSizes {
			kept := remember(dir("", 0, old))
			if now < old {
				refuses("the log was rolled back", kept, dir("", 0, now))
				continue
			}
			if old > 0 {
				words := fmt.Sprintf("the log forked: its tree of %d entries does not begin with the remembered tree", now)
				if now == old {
					words = fmt.Sprintf("the log forked: its tree of %d entries had the root", now)
				}
				refuses(words, kept, dir("fork", 0, now))     // other entries from the first one on
				refuses(words, kept, dir("fork", old-1, now)) // only the last one that was remembered is another
			}
			p.accepts("log", "--remember", p.remember, "--dir", dir("", 0, now))
			p.accepts("log", "--remember", p.remember, "--dir", dir("", 0, now))
			if after, _ := os.ReadFile(p.remember); !bytes.Equal(after, remember(dir("", 0, now))) {
				t.Fatal("the memory was not replaced")
			}
		}
	}
	kept := remember(dir("", 0, 2))
	kept = bytes.Replace(kept, []byte(testOrigin), []byte("log.example/other"), 1)
	writeFile(t, p.remember, kept)
	refuses("is of another log", kept, dir("", 0, 2))
	for _, damaged := range []string{"", "x", testOrigin + "\n2\n\n\u2014 x AAAAAAAA\n"} {
		writeFile(t, p.remember, []byte(damaged))
		refuses("the remembered checkpoint is damaged", []byte(damaged), dir("", 0, 2))
	}
	nowhere := filepath.Join(p.dir, "nowhere", "remember")
	p.refuses("the checkpoint cannot be remembered", "log", "--remember", nowhere, "--dir", dir("", 0, 2))
	if left, _ := filepath.Glob(p.remember + ".new-*"); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// liar serves another tile when it is asked again.
type liar struct {
	memory
	asked map[string]bool
}

func (l liar) read(path string, bytesMax int64) ([]byte, error) {
	data, err := l.memory.read(path, bytesMax)
	if l.asked[path] && strings.HasPrefix(path, "tile/") {
		data[0] ^= 1
	}
	l.asked[path] = true
	return data, err
}

func TestTilesThatChangeBetweenTwoReads(t *testing.T) {
	log := newLog(testEntries("", 600), witness1, witness2)
	head, _ := openCheckpoint(mustPolicy(t, testPolicy), log["checkpoint"])
	last, _ := openCheckpoint(mustPolicy(t, testPolicy), newCheckpoint(testEntries("", 257), logKey, witness1, witness2))
	tree, err := verifyTree(liar{log, map[string]bool{}}, head.tree)
	if err != nil {
		t.Fatal(err)
	}
	err = refuseInconsistent(last.tree, head.tree, tree)
	if err == nil || !strings.Contains(err.Error(), "changed while it was being verified") {
		t.Fatal(err)
	}
}

func TestSignatures(t *testing.T) {
	entries := testEntries("", 257)
	text := checkpointText(entries)
	older := checkpointText(testEntries("", 256))
	l, w1, w2 := logKey.line(text, 0), witness1.line(text, 5), witness2.line(text, 6)
	plain := rawLine(witness2.name, append(witness2.id(), ed25519.Sign(witness2.secret, []byte(text))...))
	replaced := newTestKey(witness2.name, 0x04, 99)
	otherLog := newTestKey(testOrigin, 0x01, 99)
	// A signature by one key, under the name and id of another one.
	posing := func(signer, as testKey) string {
		return rawLine(as.name, append(as.id(), decodeLine(t, signer.line(text, 6))[4:]...))
	}
	const noQuorumWords, invalidWords = "which make no quorum", "invalid signature for key"
	for _, c := range []struct{ what, note, words string }{
		{"in order", text + "\n" + l + w1 + w2, ""},
		{"in another order", text + "\n" + w2 + w1 + l, ""},
		{"unknown keys too", text + "\n" + stranger.line(text, 1) + l + w1 + replaced.line(text, 1) + w2, ""},
		{"no witness", text + "\n" + l, noQuorumWords},
		{"one of three", text + "\n" + l + w1, noQuorumWords},
		{"one, and unknown ones", text + "\n" + l + w1 + stranger.line(text, 1), noQuorumWords},
		{"one witness twice", text + "\n" + l + w1 + w1, noQuorumWords},
		{"one witness twice, at other times", text + "\n" + l + w1 + witness1.line(text, 7), noQuorumWords},
		{"over another text", text + "\n" + l + w1 + witness2.line(older, 6), invalidWords},
		{"over another text, with enough others", text + "\n" + l + w1 + w2 + witness3.line(older, 6), invalidWords},
		{"another time", text + "\n" + l + w1 + strings.Replace(w2, "AAAAAG", "AAAAAH", 1), invalidWords},
		{"a time that is too large", text + "\n" + l + w1 + witness2.line(text, 1<<63), invalidWords},
		{"a plain signature", text + "\n" + l + w1 + plain, invalidWords},
		{"another key under the name", text + "\n" + l + w1 + replaced.line(text, 6), noQuorumWords},
		{"another key under name and id", text + "\n" + l + w1 + posing(replaced, witness2), invalidWords},
		{"no log", text + "\n" + w1 + w2, "is not signed by a log of that name"},
		{"a log that is not listed", text + "\n" + otherLog.line(text, 0) + w1 + w2, "is not signed by a log of that name"},
		{"another key as the log", text + "\n" + posing(otherLog, logKey) + w1 + w2, invalidWords},
		{"the log over another text", text + "\n" + logKey.line(older, 0) + w1 + w2, invalidWords},
		{"nobody", text, "malformed note"},
		{"nobody who is known", text + "\n" + stranger.line(text, 1), "no verifiable signatures"},
	} {
		_, err := openCheckpoint(mustPolicy(t, testPolicy), []byte(c.note))
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: said %v instead of %q", c.what, err, c.words)
		}
	}
	// Two logs are listed: each speaks for itself only.
	other := newTestKey("log.example/other", 0x01, 0)
	both := mustPolicy(t, fmt.Sprintf("log %s\nlog %s\nquorum none\n", logKey, other))
	if _, err := openCheckpoint(both, signed(text, other)); err == nil {
		t.Error("a log signed for another one")
	}
	// A key that was taken out of the policy.
	without := strings.Replace(testPolicy, witness2.String(), replaced.String(), 1)
	if _, err := openCheckpoint(mustPolicy(t, without), []byte(text+"\n"+l+w1+w2)); err == nil {
		t.Error("a key that is no longer listed counts")
	}
	p := newProgram(t, testPolicy)
	p.refuses("which make no quorum", "checkpoint", "--dir", p.put(newLog(entries, witness1)))
	p.refuses("which make no quorum", "log", "--dir", p.put(newLog(entries, witness1, stranger)))
}

func TestCheckpointTexts(t *testing.T) {
	policy := mustPolicy(t, fmt.Sprintf("log %s\nquorum none\n", logKey))
	root := strings.Split(checkpointText(testEntries("", 2)), "\n")[2]
	empty := strings.Split(checkpointText(nil), "\n")[2]
	zero := strings.Repeat("A", 43) + "="
	for text, isGood := range map[string]bool{
		testOrigin + "\n2\n" + root + "\n":                    true,
		testOrigin + "\n2\n" + root + "\nmore\n":              true,
		testOrigin + "\n0\n" + empty + "\n":                   true,
		testOrigin + "\n1099511627776\n" + root + "\n":        true,
		testOrigin + "\n0\n" + zero + "\n":                    false,
		testOrigin + "\n0\n" + root + "\n":                    false,
		testOrigin + "\n1099511627777\n" + root + "\n":        false,
		testOrigin + "\n9223372036854775807\n" + root + "\n":  false,
		testOrigin + "\n9223372036854775808\n" + root + "\n":  false,
		testOrigin + "\n18446744073709551618\n" + root + "\n": false,
		testOrigin + "\n02\n" + root + "\n":                   false,
		testOrigin + "\n+2\n" + root + "\n":                   false,
		testOrigin + "\n-2\n" + root + "\n":                   false,
		testOrigin + "\n 2\n" + root + "\n":                   false,
		testOrigin + "\n\n" + root + "\n":                     false,
		testOrigin + "\n2\n" + root[:40] + "\n":               false,
		testOrigin + "\n2\n" + root[:42] + "/=\n":             false, // bits that are left over, set
		testOrigin + "\n2\n" + root + "\n\nmore\n":            false,
		testOrigin + "\n2\n":                                  false,
		"\n" + testOrigin + "\n2\n" + root + "\n":             false,
		testOrigin + "/else\n2\n" + root + "\n":               false,
	} {
		if _, err := openCheckpoint(policy, signed(text, logKey)); (err == nil) != isGood {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPolicies(t *testing.T) {
	w := []string{}
	for i := 0; i < 6; i++ {
		w = append(w, newTestKey("witness", 0x04, i).String())
	}
	lines := fmt.Sprintf("witness a %s\nwitness b %s\n", w[0], w[1])
	for text, isGood := range map[string]bool{
		"quorum none\n":                                           true,
		"  quorum\t none \n\n\t# x\n#\n":                          true,
		lines + "quorum a\n":                                      true,
		lines + "group g 1 a b\nquorum g\n":                       true,
		lines + "group g 2 a b\nquorum g\n":                       true,
		lines + "group g all a b\nquorum a\n":                     true,
		lines + "group g any b\ngroup h all g a\nquorum h\n":      true,
		lines + "group all any b\nquorum all\n":                   true,
		fmt.Sprintf("witness caf\xe9 %s\nquorum caf\xe9\n", w[0]): true,
		"quorum none":                          false, // no line end
		"":                                     false,
		"\n":                                   false,
		"quorum none\r\n":                      false,
		"# \x7f\nquorum none\n":                false,
		"# \x01\nquorum none\n":                false,
		"quorum none\nquorum none\n":           false,
		"quorum\n":                             false,
		"quorum none more\n":                   false,
		"quorum a\n" + lines:                   false,
		lines:                                  false,
		lines + "quorum c\n":                   false,
		lines + "group g 0 a b\nquorum g\n":    false,
		lines + "group g 3 a b\nquorum g\n":    false,
		lines + "group g 02 a b\nquorum g\n":   false,
		lines + "group g +1 a b\nquorum g\n":   false,
		lines + "group g most a b\nquorum g\n": false,
		lines + "group g 1\nquorum g\n":        false,
		lines + "group g 2 a a\nquorum g\n":    false, // one witness counted twice
		lines + "group g 1 a\ngroup h 2 g a\nquorum h\n":                                         false, // in another way
		lines + "group g 1 g\nquorum g\n":                                                        false,
		lines + "group g 1 none\nquorum g\n":                                                     false,
		lines + "group g 1 h\ngroup h 1 a\nquorum g\n":                                           false,
		lines + "group a 1 b\nquorum a\n":                                                        false,
		lines + "group none 1 b\nquorum a\n":                                                     false,
		lines + fmt.Sprintf("witness a %s\nquorum a\n", w[2]):                                    false,
		lines + fmt.Sprintf("witness c %s\nquorum a\n", w[0]):                                    false, // one key under two names
		lines + fmt.Sprintf("witness none %s\nquorum a\n", w[2]):                                 false,
		lines + fmt.Sprintf("witness c %s x y\nquorum a\n", w[2]):                                false,
		lines + fmt.Sprintf("witness c %s\nquorum a\n", newTestKey("renamed", 0x04, 0).String()): true,
		lines + fmt.Sprintf("witness c %s\nquorum a\n", logKey):                                  false, // a log's key
		lines + fmt.Sprintf("log %s\nquorum a\n", w[2]):                                          false, // a witness's key
		lines + fmt.Sprintf("log %s\nlog %s\nquorum a\n", logKey, logKey):                        false,
		lines + fmt.Sprintf("log %s x\nquorum a\n", logKey):                                      true,
		lines + fmt.Sprintf("log %s x y\nquorum a\n", logKey):                                    false,
		lines + "log\nquorum a\n":                                                                false,
		lines + "log x+00000000+AA==\nquorum a\n":                                                false,
		lines + "mirror x\nquorum a\n":                                                           false,
	} {
		if _, err := parsePolicy([]byte(text)); (err == nil) != isGood {
			t.Errorf("%q: %v", text, err)
		}
	}
	// A key in another spelling: upper case, another id, no name, bits that are left over.
	key := logKey.String()
	id := hex.EncodeToString(logKey.id())
	for _, bad := range []string{strings.Replace(key, id, strings.ToUpper(id), 1), strings.Replace(key, id, "00000000", 1),
		key[len(testOrigin):], strings.TrimSuffix(key, key[len(key)-4:]), key + "AAAA", strings.Replace(key, "+", "", 1)} {
		if _, err := parsePolicy([]byte("log " + bad + "\nquorum none\n")); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The example of c2sp.org/tlog-policy, with groups in a group.
func TestGroups(t *testing.T) {
	text := ""
	for i, name := range []string{"X1", "X2", "X3", "Y1", "Y2", "Y3"} {
		text += fmt.Sprintf("witness %s %s\n", name, newTestKey(name, 0x04, i).String())
	}
	policy := mustPolicy(t, text+"group X 2 X1 X2 X3\ngroup Y any Y1 Y2 Y3\ngroup XY all X Y\nquorum XY\n")
	for names, want := range map[string]bool{
		"": false, "X1": false, "X1 X2": false, "X1 X2 X3": false, "Y1 Y2 Y3": false, "X1 Y1": false,
		"X1 Y1 Y2 Y3": false, "X1 X3 Y2": true, "X2 X3 Y3": true, "X1 X2 X3 Y1 Y2 Y3": true, "XY": false, "X Y": false,
	} {
		signed := map[string]bool{}
		for _, name := range strings.Fields(names) {
			signed[name] = true
		}
		if policy.isSatisfied(signed) != want {
			t.Errorf("%q: not %v", names, want)
		}
	}
}

func TestProofs(t *testing.T) {
	p := newProgram(t, testPolicy)
	policy := mustPolicy(t, testPolicy)
	file := filepath.Join(p.dir, "proof")
	for _, size := range []int{1, 2, 255, 256, 257} {
		entries := testEntries("", size)
		for index := 0; index < size; index += 1 + size/9 {
			text := newProof(entries, index, "extra AAEC\n")
			writeFile(t, file, []byte(text))
			got := p.accepts("proof", "--proof", file, "--leaf", hex.EncodeToString(entries[index]))
			if want := fmt.Sprintf("witness two time %d\nindex %d\n", testTime+2, index); !strings.HasSuffix(got, want) {
				t.Errorf("printed %q instead of %q", got, want)
			}
			p.refuses("does not show", "proof", "--proof", file, "--leaf", hex.EncodeToString(testEntry("other", index)))
			wrong := strings.Replace(text, fmt.Sprintf("index %d\n", index), fmt.Sprintf("index %d\n", (index+1)%(size+1)), 1)
			if _, _, err := checkProof(policy, []byte(wrong), entries[index]); err == nil {
				t.Error("another index is accepted")
			}
		}
	}
	entries := testEntries("", 257)
	good := newProof(entries, 100, "")
	for i := range good {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			bad := []byte(good)
			bad[i] ^= flip
			if _, _, err := checkProof(policy, bad, entries[100]); err == nil {
				t.Fatalf("byte %d changed by %d is accepted: %q", i, flip, bad)
			}
		}
		if _, _, err := checkProof(policy, []byte(good[:i]), entries[100]); err == nil {
			t.Fatalf("cut to %d bytes is accepted", i)
		}
	}
	line := strings.Split(good, "\n")[2] + "\n"
	for _, bad := range []string{
		strings.Replace(good, line, "", 1),
		strings.Replace(good, line, line+line, 1),
		strings.Replace(good, "@v1\n", "@v1\nextra A\n", 1),
		strings.Replace(good, "@v1\n", "@v1\nextra AAEC\nextra AAEC\n", 1),
		strings.Replace(good, "index 100", "index 0100", 1),
		strings.Replace(good, "index 100", "index -1", 1),
		strings.Replace(good, "index 100\n", "", 1),
		strings.Replace(good, witness2.line(checkpointText(entries), testTime+2), "", 1),
		"\n" + good,
		strings.ReplaceAll(good, "\n", "\r\n"),
	} {
		if _, _, err := checkProof(policy, []byte(bad), entries[100]); err == nil || bad == good {
			t.Errorf("%q is accepted", bad)
		}
	}
	writeFile(t, file, []byte(good))
	leaf := hex.EncodeToString(entries[100])
	for _, bad := range []string{leaf[2:], leaf + "00", "02" + leaf[2:], leaf[:2] + "07" + leaf[4:]} {
		p.refuses("the leaf cannot be in the log", "proof", "--proof", file, "--leaf", bad)
	}
	for _, bad := range []string{leaf[1:], "x" + leaf[1:]} {
		p.refuses("the leaf is not written in hexadecimal", "proof", "--proof", file, "--leaf", bad)
	}
	p.refuses("the proof cannot be read", "proof", "--proof", file+"x", "--leaf", leaf)
}

func TestOverHTTP(t *testing.T) {
	p := newProgram(t, testPolicy)
	log := newLog(testEntries("", 600), witness1, witness2)
	answer := func(w http.ResponseWriter, data []byte) { w.Write(data) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, exists := log[strings.TrimPrefix(r.URL.Path, "/prefix/")]
		if !exists {
			http.NotFound(w, r)
			return
		}
		answer(w, data)
	}))
	defer server.Close()
	prefix := server.URL + "/prefix/"
	p.accepts("checkpoint", "--url", prefix)
	p.accepts("log", "--url", prefix, "--remember", p.remember)
	p.accepts("log", "--url", strings.TrimSuffix(prefix, "/"), "--remember", p.remember)
	answer = func(w http.ResponseWriter, data []byte) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(data)
		z.Close()
	}
	p.accepts("log", "--url", prefix)
	answer = func(w http.ResponseWriter, data []byte) { // a small answer that becomes a large one
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(append(data, make([]byte, 10*checkpointBytesMax)...))
		z.Close()
	}
	p.refuses("it is longer than", "log", "--url", prefix)
	answer = func(w http.ResponseWriter, data []byte) { // one that does not end
		for block := make([]byte, 1<<16); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	p.refuses("it is longer than", "checkpoint", "--url", prefix)
	answer = func(w http.ResponseWriter, data []byte) { w.WriteHeader(500); w.Write(data) }
	p.refuses("the server answered 500", "log", "--url", prefix)
	answer = func(w http.ResponseWriter, data []byte) { // one that is cut off
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)-1])
	}
	p.refuses("the checkpoint cannot be read", "log", "--url", prefix)
	p.refuses("it does not exist", "log", "--url", server.URL+"/elsewhere")
	server.Close()
	p.refuses("the checkpoint cannot be read", "log", "--url", prefix)
	p.refuses("is not an http or https address", "log", "--url", "file:///etc")
}

func TestPaths(t *testing.T) {
	for path, tile := range map[string][3]int{
		"tile/0/000": {0, 0, 256}, "tile/63/x001/x234/067.p/1": {63, 1234067, 1}, "tile/2/x001/000": {2, 1000, 256},
		"tile/entries/x273/999.p/255": {-1, 273999, 255}, "tile/entries/000": {-1, 0, 256},
	} {
		if got := tilePath(tileOf(tile)); got != path {
			t.Errorf("%s instead of %s", got, path)
		}
	}
}

// A checkpoint of a public log (staging, 2026), with its real signatures: by two keys of the log, one of them of a
// type that is not known here, and by four witnesses, of whom the policy lists one.
func TestPublicCheckpoint(t *testing.T) {
	const signed = `arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
`
	policy := mustPolicy(t, `log arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f
witness remora remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2
quorum remora
`)
	head, err := openCheckpoint(policy, []byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	if head.tree.N != 1432088532 || len(head.cosignatures) != 1 || head.cosignatures[0].time != 1779573024 {
		t.Errorf("%v", head)
	}
	for _, change := range []string{"1432088532", "U7WM", "2net5wAAAABq", "ui8GwCF1"} {
		bad := strings.Replace(signed, change, change[:len(change)-1]+"3", 1)
		if _, err := openCheckpoint(policy, []byte(bad)); err == nil {
			t.Errorf("%s changed is accepted", change)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, line := range []string{"", "x", "log", "log --dir d", "log --policy p", "log --policy p --dir d --url u",
		"log --policy p --dir d more", "log --policy p --dir d --leaf 00", "checkpoint --policy p --dir d --remember r",
		"proof --policy p --proof f", "proof --policy p --leaf 00", "proof --policy p --dir d --proof f --leaf 00"} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(line), &stdout, &stderr); code != exitUsage || stdout.Len() > 0 {
			t.Errorf("%q: exit code %d", line, code)
		}
	}
	for _, line := range []string{"help", "--help", "log --help"} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(line), &stdout, &stderr); code != exitVerified || stdout.String() != usage {
			t.Errorf("%q: exit code %d", line, code)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(strings.Fields("log --policy nowhere --dir nowhere"), &stdout, &stderr); code != exitRefused {
		t.Errorf("exit code %d", code)
	}
}
