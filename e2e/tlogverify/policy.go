package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// policyBytesMax bounds a policy file: thousands of keys fit.
const policyBytesMax = 1 << 20

// Signature types of c2sp.org/signed-note.
const (
	kindLog      = 0x01 // Ed25519 over the note's text
	kindCosigner = 0x04 // Ed25519 over a time and the note's text
)

// noQuorum is the name that stands for "no witness is needed".
const noQuorum = "none"

// policy is who has to have signed a checkpoint: c2sp.org/tlog-policy.
type policy struct {
	keys      note.Verifiers   // of all logs and witnesses
	logs      []note.Verifier  // in the order of the file
	witnesses []witness        // in the order of the file
	groups    map[string]group // by name
	names     map[string]bool  // of witnesses and groups; true once it is a member of a group
	seen      map[string]bool  // public keys, with their kind
	quorum    string           // a name, or noQuorum; empty until its line was read
}

type witness struct {
	name string // in the policy file only; the key has a name of its own
	key  *cosigner
}

type group struct {
	threshold int
	members   []string
}

// loadPolicy reads a policy file.
func loadPolicy(path string) (*policy, error) {
	text, err := readFile(path, policyBytesMax)
	if err != nil {
		return nil, fmt.Errorf("the policy cannot be read: %w", err)
	}
	return parsePolicy(text)
}

func parsePolicy(text []byte) (*policy, error) {
	p := &policy{groups: map[string]group{}, names: map[string]bool{}, seen: map[string]bool{}}
	// A file that was cut off could mean something else: its last line might be a part of a name.
	if !bytes.HasSuffix(text, []byte("\n")) {
		return nil, errors.New("the policy does not end with a line end")
	}
	for _, octet := range text {
		if octet < 0x20 && octet != '\t' && octet != '\n' || octet == 0x7f {
			return nil, fmt.Errorf("the policy holds the control character 0x%02x", octet)
		}
	}
	for i, line := range strings.Split(string(text), "\n") {
		// Only spaces and tabs separate; other white space is a part of names.
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := p.addLine(fields); err != nil {
			return nil, fmt.Errorf("line %d of the policy is refused: %w", i+1, err)
		}
	}
	if p.quorum == "" {
		return nil, errors.New("the policy has no quorum line")
	}
	var keys []note.Verifier
	keys = append(keys, p.logs...)
	for _, w := range p.witnesses {
		keys = append(keys, w.key)
	}
	p.keys = note.VerifierList(keys...)
	return p, nil
}

// addLine takes one line, as its fields: the keyword and at least what follows it by the switch below.
func (p *policy) addLine(fields []string) error {
	arguments := fields[1:]
	switch n := len(arguments); {
	case fields[0] == "log" && (n == 1 || n == 2): // the key and perhaps an address, which is not used here
		return p.addLog(arguments[0])
	case fields[0] == "witness" && (n == 2 || n == 3):
		return p.addWitness(arguments[0], arguments[1])
	case fields[0] == "group" && n >= 3:
		return p.addGroup(arguments[0], arguments[1], arguments[2:])
	case fields[0] == "quorum" && n == 1:
		return p.setQuorum(arguments[0])
	default:
		return errors.New("it is none of: log, witness, group, quorum, with what belongs to them")
	}
}

func (p *policy) addLog(text string) error {
	if _, err := p.parseKey(text, kindLog); err != nil {
		return err
	}
	key, err := note.NewVerifier(text)
	if err != nil {
		return err
	}
	p.logs = append(p.logs, key)
	return nil
}

func (p *policy) addWitness(name, text string) error {
	key, err := p.parseKey(text, kindCosigner)
	if err != nil {
		return err
	}
	if err := p.define(name); err != nil {
		return err
	}
	p.witnesses = append(p.witnesses, witness{name, key})
	return nil
}

func (p *policy) addGroup(name, threshold string, members []string) error {
	for _, member := range members {
		isMember, isDefined := p.names[member]
		if !isDefined {
			return fmt.Errorf("%q is not defined above it", member)
		}
		// So no witness counts in two ways.
		if isMember {
			return fmt.Errorf("%q is already the member of a group", member)
		}
		p.names[member] = true
	}
	g := group{members: members}
	switch threshold {
	case "any":
		g.threshold = 1
	case "all":
		g.threshold = len(members)
	default:
		k, err := parseDecimal(threshold)
		if err != nil || k < 1 || k > int64(len(members)) {
			return fmt.Errorf("%q of %d members is no threshold", threshold, len(members))
		}
		g.threshold = int(k)
	}
	if err := p.define(name); err != nil {
		return err
	}
	p.groups[name] = g
	return nil
}

func (p *policy) setQuorum(name string) error {
	if p.quorum != "" {
		return errors.New("the quorum is set twice")
	}
	if _, isDefined := p.names[name]; !isDefined && name != noQuorum {
		return fmt.Errorf("%q is not defined above it", name)
	}
	p.quorum = name
	return nil
}

// define takes a name for a witness or a group.
func (p *policy) define(name string) error {
	if _, isDefined := p.names[name]; isDefined || name == noQuorum {
		return fmt.Errorf("the name %q is taken", name)
	}
	p.names[name] = false
	return nil
}

// parseKey reads a verifier key, `name+id+base64(kind | public key)`, in its one spelling. The same public
// key is taken once only, whatever its name.
func (p *policy) parseKey(text string, kind byte) (*cosigner, error) {
	name, rest, _ := strings.Cut(text, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !isKeyName(name) || len(key) == 0 {
		return nil, errors.New("its key is not a verifier key")
	}
	if key[0] != kind || len(key) != 1+ed25519.PublicKeySize {
		return nil, fmt.Errorf("its key is not an Ed25519 key of signature type 0x%02x", kind)
	}
	id := keyID(name, key)
	if text != fmt.Sprintf("%s+%08x+%s", name, id, base64.StdEncoding.EncodeToString(key)) {
		return nil, errors.New("its key does not have the id that belongs to it")
	}
	if p.seen[string(key)] {
		return nil, errors.New("its public key is listed twice")
	}
	p.seen[string(key)] = true
	return &cosigner{name, id, key[1:]}, nil
}

// isKeyName says whether a key may have this name: c2sp.org/signed-note.
func isKeyName(name string) bool {
	return name != "" && utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsSpace) < 0
}

// keyID is the id of a key, given with its kind in front: c2sp.org/signed-note.
func keyID(name string, key []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(sum[:4])
}

// isSatisfied says whether the witnesses with these names of the policy make the quorum.
func (p *policy) isSatisfied(signed map[string]bool) bool {
	var holds func(name string) bool
	holds = func(name string) bool {
		g, isGroup := p.groups[name]
		if !isGroup {
			return signed[name]
		}
		count := 0
		for _, member := range g.members {
			if holds(member) {
				count++
			}
		}
		return count >= g.threshold
	}
	return p.quorum == noQuorum || holds(p.quorum)
}

// cosigner is the key of a witness. It is a note.Verifier: note.Open calls Verify for the lines with its name
// and id.
type cosigner struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.id }

// Verify checks a cosignature/v1 over a checkpoint's text: c2sp.org/tlog-cosignature.
func (c *cosigner) Verify(text, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(signature)
	if time > math.MaxInt64 {
		return false
	}
	message := append([]byte(fmt.Sprintf("cosignature/v1\ntime %d\n", time)), text...)
	return ed25519.Verify(c.key, message, signature[8:])
}

// parseDecimal reads a number without sign, in its one spelling.
func parseDecimal(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	return n, nil
}
