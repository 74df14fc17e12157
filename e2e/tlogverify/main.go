// Tlogverify checks a transparency log from the outside: its checkpoint, all of its entries and tiles, and
// that it only grew since the last look. README.md says what is checked and how to run it.
//
// It shares no code with the program that writes the log. Hashing and proofs are those of Go's own
// checksum database (golang.org/x/mod/sumdb). The formats are those of https://c2sp.org: signed-note,
// tlog-checkpoint, tlog-cosignature, tlog-policy, tlog-proof and tlog-tiles.
package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

const usage = `usage:
  tlogverify checkpoint --policy FILE (--dir DIR | --url PREFIX)
  tlogverify log        --policy FILE (--dir DIR | --url PREFIX) [--remember FILE]
  tlogverify proof      --policy FILE --proof FILE --leaf HEX

  checkpoint  the newest checkpoint is signed by a log of the policy and by enough witnesses
  log         the same; and every entry and tile of the log belongs to that checkpoint; and, with
              --remember, the log only grew since the checkpoint kept in that file
  proof       the entry with these bytes (66, in hexadecimal) is in the log, by a .tlog-proof file

The exit code is 0 when everything holds, 1 when something does not, 2 when the command is not understood.
`

// Exit codes.
const (
	exitVerified = 0
	exitRefused  = 1
	exitUsage    = 2
)

// errUsage is for a command line that is not understood.
var errUsage = errors.New("wrong usage")

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program; the tests call it.
func run(arguments []string, stdout, stderr io.Writer) int {
	err := command(arguments, stdout)
	switch {
	case err == nil:
		return exitVerified
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitVerified
	case errors.Is(err, errUsage):
		fmt.Fprint(stderr, usage)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "tlogverify: %v.\n", err)
		return exitRefused
	}
}

// options are the flags of all commands.
type options struct {
	policy, dir, url, remember, proof, leaf string
}

func command(arguments []string, stdout io.Writer) error {
	if len(arguments) == 0 {
		return errUsage
	}
	var o options
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.policy, "policy", "", "")
	var verify func(options, io.Writer) error
	switch arguments[0] {
	case "checkpoint":
		verify = verifyCheckpoint
	case "log":
		verify = verifyLog
		flags.StringVar(&o.remember, "remember", "", "")
	case "proof":
		verify = verifyProof
		flags.StringVar(&o.proof, "proof", "", "")
		flags.StringVar(&o.leaf, "leaf", "", "")
	case "help", "--help", "-help", "-h":
		return flag.ErrHelp
	default:
		return errUsage
	}
	isOfLog := arguments[0] != "proof"
	if isOfLog {
		flags.StringVar(&o.dir, "dir", "", "")
		flags.StringVar(&o.url, "url", "", "")
	}
	if err := flags.Parse(arguments[1:]); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil || flags.NArg() > 0 || o.policy == "" {
		return errUsage
	}
	if isOfLog && (o.dir == "") == (o.url == "") {
		return errUsage
	}
	if !isOfLog && (o.proof == "" || o.leaf == "") {
		return errUsage
	}
	return verify(o, stdout)
}

func verifyCheckpoint(o options, stdout io.Writer) error {
	src, err := newSource(o.dir, o.url)
	if err != nil {
		return err
	}
	head, err := newestCheckpoint(o, src)
	if err != nil {
		return err
	}
	head.print(stdout)
	return nil
}

func verifyLog(o options, stdout io.Writer) error {
	src, err := newSource(o.dir, o.url)
	if err != nil {
		return err
	}
	head, err := newestCheckpoint(o, src)
	if err != nil {
		return err
	}
	var last *checkpoint
	if o.remember != "" {
		if last, err = loadRemembered(o.remember); err != nil {
			return err
		}
	}
	if last != nil {
		if err := refuseOlder(last, head); err != nil {
			return err
		}
	}
	tree, err := verifyTree(src, head.tree)
	if err != nil {
		return err
	}
	if last != nil {
		if err := refuseInconsistent(last.tree, head.tree, tree); err != nil {
			return err
		}
	}
	if o.remember != "" {
		if err := saveRemembered(o.remember, head.signed); err != nil {
			return err
		}
	}
	head.print(stdout)
	fmt.Fprintf(stdout, "checked %d entries, %d tiles\n", head.tree.N, len(tree.sums))
	if last != nil {
		fmt.Fprintf(stdout, "consistent with the remembered size %d\n", last.tree.N)
	} else if o.remember != "" {
		fmt.Fprintln(stdout, "remembered for the first time")
	}
	return nil
}

func verifyProof(o options, stdout io.Writer) error {
	policy, err := loadPolicy(o.policy)
	if err != nil {
		return err
	}
	entry, err := hex.DecodeString(o.leaf)
	if err != nil {
		return errors.New("the leaf is not written in hexadecimal")
	}
	if err := checkEntry(entry); err != nil {
		return fmt.Errorf("the leaf cannot be in the log: %w", err)
	}
	text, err := readFile(o.proof, proofBytesMax)
	if err != nil {
		return fmt.Errorf("the proof cannot be read: %w", err)
	}
	index, head, err := checkProof(policy, text, entry)
	if err != nil {
		return err
	}
	head.print(stdout)
	fmt.Fprintf(stdout, "index %d\n", index)
	return nil
}

// newestCheckpoint reads the policy, and the log's checkpoint, which has to satisfy it.
func newestCheckpoint(o options, src source) (*checkpoint, error) {
	policy, err := loadPolicy(o.policy)
	if err != nil {
		return nil, err
	}
	signed, err := src.read("checkpoint", checkpointBytesMax)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint cannot be read: %w", err)
	}
	return openCheckpoint(policy, signed)
}
