#!/usr/bin/env python3
"""Recomputes what a transparency log says of itself, from nothing but its published files.

    recompute.py LOG_DIRECTORY [REPORT ...]
    recompute.py --self-test

LOG_DIRECTORY holds the static files of a log: `checkpoint`, `tile/entries/...` (C2SP tlog-tiles) and
`map/...`. Each REPORT is a transparency report that was published about it, as text or as JSON. This
program

1. hashes all leaves (RFC 6962) and compares the root with the one in the checkpoint's body;
2. rebuilds each version of the state map from the published inputs and compares its root with the
   leaf of that version;
3. makes each report anew and compares it byte for byte. A report may be older than the checkpoint.

It ends with 0 if everything is as published, and otherwise with 1 and a sentence about the first
difference. It uses the standard library of Python 3.8 and shares no code with the project: it was
written from docs/formats/log.md, state-map.md and transparency-report.md. Signatures are not checked
here: for these any verifier of C2SP signed notes will do.
"""

import base64
import hashlib
import json
import os
import sys

WIDTH = 256  # leaves in a full bundle
LEAF_BYTES = 66
STATE_MAP = 1
CLASSES = ["sealed", "state map", "access", "move", "erasure", "report", "build"]
EMPTY = bytes(32)
CHECKPOINT_MAX_BYTES = 1 << 20
INPUTS_MAX_BYTES = 64 << 20

REMARKS = [
    "Sealed leaves are statements of accounts and padding, which look the same.",
    "Nobody can tell them apart without an account's keys: their number is not the number of statements.",
    "Leaves of the other classes are open, and anybody can count them.",
    "What was never put into the log is not counted here.",
]


class Difference(Exception):
    """Something is not as it was published; the text says what."""


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# --- the published files ----------------------------------------------------------------------------


class Directory:
    """The files of a log on disk."""

    def __init__(self, root):
        self.root = root

    def get(self, path, most):
        """The bytes of a file, or None if it is not there."""
        try:
            with open(os.path.join(self.root, *path.split("/")), "rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        if len(data) > most:
            raise Difference(f"{path} is longer than {most} bytes.")
        return data


class Memory:
    """The same, for the self-test."""

    def __init__(self, files):
        self.files = files

    def get(self, path, most):
        return self.files.get(path)


def elements(number, fewest):
    """A number as path elements of three digits, all but the last one after an `x`."""
    parts = [f"{number % 1000:03}"]
    number //= 1000
    while number > 0 or len(parts) < fewest:
        parts.append(f"x{number % 1000:03}")
        number //= 1000
    return "/".join(reversed(parts))


def read_checkpoint(files):
    """Origin, size and root of the checkpoint's body."""
    data = files.get("checkpoint", CHECKPOINT_MAX_BYTES)
    if data is None:
        raise Difference("There is no checkpoint.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Difference("The checkpoint is not UTF-8.") from None
    body, separator, _signatures = text.rpartition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) < 3 or not all(lines):
        raise Difference("The checkpoint does not have the form of a signed note.")
    origin, size, root = lines[:3]
    # At most 20 digits: 64 bits.
    is_number = size.isascii() and size.isdigit() and len(size) <= 20
    if not is_number or str(int(size)) != size:
        raise Difference("The checkpoint's size is not a number.")
    try:
        hashed = base64.b64decode(root, validate=True)
    except ValueError:
        hashed = b""
    if len(hashed) != 32 or base64.b64encode(hashed).decode() != root:
        raise Difference("The checkpoint's root is not a hash in base64.")
    return origin, int(size), hashed


def read_leaves(files, size):
    """All leaves of a tree of this size, one after the other."""
    for bundle in range((size + WIDTH - 1) // WIDTH):
        width = min(WIDTH, size - bundle * WIDTH)
        whole = f"tile/entries/{elements(bundle, 1)}"
        most = WIDTH * (2 + LEAF_BYTES)
        path, count = whole, WIDTH
        data = None
        if width < WIDTH:
            path, count = f"{whole}.p/{width}", width
            data = files.get(path, most)
        if data is None:
            # A partial bundle may be gone once the full one is there.
            path, count = whole, WIDTH
            data = files.get(path, most)
        if data is None:
            raise Difference(f"The leaves from {bundle * WIDTH} on are missing ({whole}).")
        step = 2 + LEAF_BYTES
        prefix = LEAF_BYTES.to_bytes(2, "big")
        for place in range(count):
            here = data[place * step : (place + 1) * step]
            if len(here) != step or here[:2] != prefix:
                raise Difference(f"{path} does not hold {count} leaves of {LEAF_BYTES} bytes.")
            if place < width:
                yield here[2:]
        if len(data) != count * step:
            raise Difference(f"{path} holds more than {count} leaves.")


# --- the tree (RFC 6962, section 2.1) -----------------------------------------------------------------


class Tree:
    """Hashes leaves as they come. Keeps one root for each full subtree at the right edge."""

    def __init__(self):
        self.size = 0
        self.edge = []

    def add(self, leaf):
        self.edge.append(sha256(b"\x00", leaf))
        self.size += 1
        filled = self.size
        while filled % 2 == 0:
            right = self.edge.pop()
            self.edge.append(sha256(b"\x01", self.edge.pop(), right))
            filled //= 2

    def root(self):
        if not self.edge:
            return sha256()
        root = self.edge[-1]
        for left in reversed(self.edge[:-1]):
            root = sha256(b"\x01", left, root)
        return root


# --- the state map --------------------------------------------------------------------------------------


def bit(key, depth):
    return key[depth // 8] >> (7 - depth % 8) & 1


class StateMap:
    """A node is None, an entry (key, value), or a list [left, right, hash or None]."""

    def __init__(self):
        self.top = None

    def change(self, key, value):
        self.top = self._change(self.top, key, value, 0)

    def _change(self, node, key, value, depth):
        if node is None or (isinstance(node, tuple) and node[0] == key):
            return (key, value)
        if isinstance(node, tuple):
            there = node
            node = [None, None, None]
            node[bit(there[0], depth)] = there
        side = bit(key, depth)
        node[side] = self._change(node[side], key, value, depth + 1)
        node[2] = None
        return node

    def root(self):
        return self._hash(self.top)

    def _hash(self, node):
        if node is None:
            return EMPTY
        if isinstance(node, tuple):
            return sha256(b"\x00", node[0], node[1])
        if node[2] is None:
            node[2] = sha256(b"\x01", self._hash(node[0]), self._hash(node[1]))
        return node[2]


def apply_inputs(state_map, files, version):
    """Brings the map to this version with what was published for it."""
    path = f"map/{elements(version, 2)}"
    data = files.get(path, INPUTS_MAX_BYTES)
    if data is None:
        raise Difference(f"The inputs of version {version} of the state map are missing ({path}).")
    if len(data) % 64 != 0:
        raise Difference(f"{path} is not a list of changes.")
    before = None
    for place in range(0, len(data), 64):
        key, value = data[place : place + 32], data[place + 32 : place + 64]
        if before is not None and key <= before:
            raise Difference(f"{path} is not in the order of its keys.")
        state_map.change(key, value)
        before = key


# --- the report -------------------------------------------------------------------------------------------


class Counts:
    def __init__(self):
        self.size = 0
        self.classes = [[0, None, None] for _ in CLASSES]
        self.versions = [0, None, None]
        self.not_following = 0

    @staticmethod
    def _count(count, place):
        count[0] += 1
        count[1] = place if count[1] is None else count[1]
        count[2] = place

    def add(self, kind, version):
        self._count(self.classes[kind], self.size)
        if kind == STATE_MAP:
            if version != (self.versions[2] or 0) + 1:
                self.not_following += 1
            self._count(self.versions, version)
        self.size += 1

    def text(self, origin, root):
        def shown(place):
            return "-" if place is None else str(place)

        lines = [
            "Candor transparency report, version 1",
            "",
            f"Log:      {origin}",
            f"Leaves:   {self.size}",
            f"Root:     {base64.b64encode(root).decode()}",
            "",
            f"{'Class':<10}{'Leaves':>15}{'First':>15}{'Last':>15}",
        ]
        for name, (leaves, first, last) in zip(CLASSES, self.classes):
            lines.append(f"{name:<10}{leaves:>15}{shown(first):>15}{shown(last):>15}")
        versions, first, last = self.versions
        if versions == 0:
            said = "no version."
        elif self.not_following == 0:
            said = f"versions {first} to {last}, each once and in order."
        else:
            said = (
                f"versions {first} to {last}; {self.not_following} of {versions} do not follow "
                "from the one before."
            )
        lines += ["", f"State map: {said}", "", *REMARKS, ""]
        return "\n".join(lines).encode()

    def json(self, origin, root):
        classes = [
            {"code": code, "name": name, "leaves": count[0], "first": count[1], "last": count[2]}
            for code, (name, count) in enumerate(zip(CLASSES, self.classes))
        ]
        report = {
            "report": "candor transparency",
            "version": 1,
            "origin": origin,
            "leaves": self.size,
            "root": base64.b64encode(root).decode(),
            "classes": classes,
            "state_map": {
                "versions": self.versions[0],
                "first": self.versions[1],
                "last": self.versions[2],
                "not_following": self.not_following,
            },
            "remarks": REMARKS,
        }
        return json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n"


def size_of_report(name, data):
    """For how many leaves a report claims to be, and whether it is JSON."""
    try:
        if data.startswith(b"{"):
            size, is_json = json.loads(data)["leaves"], True
        else:
            lines = data.decode("utf-8").split("\n")
            size = next(line[8:].strip() for line in lines if line.startswith("Leaves: "))
            size, is_json = int(size), False
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError):
        raise Difference(f"{name} is not a transparency report.") from None
    if not isinstance(size, int) or size < 0:
        raise Difference(f"{name} is not a transparency report.")
    return size, is_json


def compare_report(name, published, recomputed):
    if published == recomputed:
        return
    pairs = zip(published.split(b"\n"), recomputed.split(b"\n"))
    for number, (theirs, ours) in enumerate(pairs, 1):
        if theirs != ours:
            theirs, ours = (line.decode("utf-8", "replace").strip() for line in (theirs, ours))
            raise Difference(f"{name}, line {number}: published is {theirs!r}, computed is {ours!r}.")
    raise Difference(f"{name} does not end where it has to.")


# --- all of it ----------------------------------------------------------------------------------------------


def recompute(files, reports):
    """Checks everything. `reports` maps names to bytes. Returns a sentence."""
    origin, size, root = read_checkpoint(files)
    waiting = {}
    for name, data in reports.items():
        at, is_json = size_of_report(name, data)
        if at > size:
            raise Difference(f"{name} counts {at} leaves; the checkpoint has {size}.")
        waiting.setdefault(at, []).append((name, data, is_json))
    tree, state_map, counts = Tree(), StateMap(), Counts()
    roots = []

    def judge_reports():
        for name, data, is_json in waiting.get(counts.size, []):
            form = counts.json if is_json else counts.text
            roots.append((name, data, form(origin, tree.root())))

    judge_reports()
    for leaf in read_leaves(files, size):
        if leaf[0] != 1:
            raise Difference(f"Leaf {counts.size} has version {leaf[0]}, which does not exist.")
        kind, label, commitment = leaf[1], leaf[2:34], leaf[34:]
        if kind >= len(CLASSES):
            raise Difference(f"Leaf {counts.size} is of class {kind}, which does not exist.")
        version = None
        if kind == STATE_MAP:
            if any(label[:24]):
                raise Difference(f"Leaf {counts.size} names no version of the state map.")
            version = int.from_bytes(label[24:], "big")
            if version != (counts.versions[2] or 0) + 1:
                raise Difference(
                    f"Leaf {counts.size} is version {version} of the state map, after version "
                    f"{counts.versions[2] or 0}."
                )
            apply_inputs(state_map, files, version)
            if state_map.root() != commitment:
                raise Difference(
                    f"Version {version} of the state map, rebuilt from its inputs, has another root "
                    f"than leaf {counts.size} says."
                )
        tree.add(leaf)
        counts.add(kind, version)
        judge_reports()
    if tree.root() != root:
        raise Difference("The leaves do not hash to the root in the checkpoint.")
    for name, published, recomputed in roots:
        compare_report(name, published, recomputed)
    return (
        f"{origin} is as published: leaves {size}, versions of the state map "
        f"{counts.versions[0]}, reports {len(reports)}."
    )


# --- the self-test ------------------------------------------------------------------------------------------


def naive_tree(leaves):
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(
        b"\x01" + naive_tree(leaves[:split]) + naive_tree(leaves[split:])
    ).digest()


def naive_map(entries, depth=0):
    """The rules of the state map, word for word: `entries` are pairs, ascending by key."""
    if not entries:
        return bytes(32)
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0][0] + entries[0][1]).digest()
    halves = ([], [])
    for key, value in entries:
        halves[int(f"{int.from_bytes(key, 'big'):0256b}"[depth])].append((key, value))
    left, right = (naive_map(half, depth + 1) for half in halves)
    return hashlib.sha256(b"\x01" + left + right).digest()


def tiny_log(size, batch):
    """The files of a log of `size` leaves, with a version of the state map each `batch` leaves."""

    def some(*words):
        return hashlib.sha256(repr(words).encode()).digest()

    files, leaves, accounts, version = {}, [], {}, 0
    for place in range(size):
        if place % batch == batch - 1:
            version += 1
            changed = {some("key", version * n % 23): some("value", version, n) for n in range(4)}
            if version == 2:
                # Two keys that differ in their last bit, and nothing at all in version 3.
                changed[bytes(31) + b"\x00"] = some("first twin")
                changed[bytes(31) + b"\x01"] = some("second twin")
            if version == 3:
                changed = {}
            accounts.update(changed)
            name = f"map/x{version // 1000:03}/{version % 1000:03}"
            files[name] = b"".join(key + changed[key] for key in sorted(changed))
            label = bytes(24) + version.to_bytes(8, "big")
            leaves.append(b"\x01\x01" + label + naive_map(sorted(accounts.items())))
        else:
            kind = 0 if place % 7 else place % 5 + 2
            leaves.append(bytes([1, kind]) + some("label", place) + some("commitment", place))
    for first in range(0, size, 256):
        bundle = leaves[first : first + 256]
        name = f"tile/entries/{first // 256:03}"
        if len(bundle) < 256:
            name += f".p/{len(bundle)}"
        files[name] = b"".join(b"\x00\x42" + leaf for leaf in bundle)
    root = base64.b64encode(naive_tree(leaves)).decode()
    note = f"tiny.invalid/log\n{size}\n{root}\n\n\u2014 tiny.invalid/log AAAAAA==\n"
    files["checkpoint"] = note.encode()
    return files, leaves


def reports_of(leaves):
    counts = Counts()
    for leaf in leaves:
        version = int.from_bytes(leaf[26:34], "big") if leaf[1] == STATE_MAP else None
        counts.add(leaf[1], version)
    root = naive_tree(leaves)
    return counts.text("tiny.invalid/log", root), counts.json("tiny.invalid/log", root)


def self_test():
    files, leaves = tiny_log(600, 30)
    text, as_json = reports_of(leaves)
    older, _ = reports_of(leaves[:300])
    honest = {"report.txt": text, "report.json": as_json, "older.txt": older}
    print(recompute(Memory(files), honest))
    empty, _ = tiny_log(0, 1)
    text_of_empty, json_of_empty = reports_of([])
    print(recompute(Memory(empty), {"a": text_of_empty, "b": json_of_empty}))
    # A partial bundle that is gone because the full one is there.
    grown, _ = tiny_log(512, 30)
    grown["checkpoint"] = tiny_log(300, 30)[0]["checkpoint"]
    print(recompute(Memory(grown), {"older.txt": older}))

    caught = 0

    def must_differ(what, changed_files, changed_reports):
        nonlocal caught
        try:
            recompute(Memory({**files, **changed_files}), {**honest, **changed_reports})
        except Difference as difference:
            print(f"  found, {what}: {difference}")
            caught += 1
            return
        raise Difference(f"The self-test does not notice {what}.")

    def flipped(data, place):
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    full, second = files["tile/entries/000"], files["tile/entries/001"]
    inputs = files["map/x000/005"]
    note = files["checkpoint"]
    for place in (0, 1, 2, 3, 40, len(full) - 1):
        must_differ(f"a changed byte {place} of leaves", {"tile/entries/000": flipped(full, place)}, {})
    must_differ("a missing bundle", {"tile/entries/001": None}, {})
    must_differ("a bundle that is cut", {"tile/entries/001": second[:-1]}, {})
    must_differ("a leaf too many", {"tile/entries/001": second + full[:68]}, {})
    must_differ("no checkpoint", {"checkpoint": None}, {})
    root, other = (base64.b64encode(hashed) for hashed in (naive_tree(leaves), bytes(32)))
    must_differ("another root", {"checkpoint": note.replace(root, other)}, {})
    must_differ("a spelling of the root", {"checkpoint": note.replace(root, root[:-1])}, {})
    must_differ("another size", {"checkpoint": note.replace(b"600", b"599")}, {})
    must_differ("a spelling of the size", {"checkpoint": note.replace(b"600", b"0600")}, {})
    for place in (0, 31, 32, len(inputs) - 1):
        must_differ(f"a changed byte {place} of inputs", {"map/x000/005": flipped(inputs, place)}, {})
    must_differ("inputs in another order", {"map/x000/005": inputs[64:] + inputs[:64]}, {})
    must_differ("inputs that are cut", {"map/x000/005": inputs[:-1]}, {})
    must_differ("missing inputs", {"map/x000/020": None}, {})
    must_differ("inputs of another version", {"map/x000/005": files["map/x000/006"]}, {})
    must_differ("a count", {}, {"report.txt": text.replace(b"20", b"21", 1)})
    must_differ("a count in JSON", {}, {"report.json": as_json.replace(b"20", b"21", 1)})
    must_differ("a remark that was left out", {}, {"report.txt": text[: -len(REMARKS[-1]) - 1]})
    must_differ("a spelling of JSON", {}, {"report.json": as_json.replace(b"  ", b" ")})
    must_differ("a report of another log", {}, {"report.txt": text_of_empty.replace(b"tiny", b"tidy")})
    must_differ("a report of too many", {}, {"report.txt": text.replace(b"600", b"601", 1)})
    must_differ("no report at all", {}, {"report.txt": b"All is well.\n"})
    print(f"The self-test found all {caught} differences.")


def main(arguments):
    if arguments == ["--self-test"]:
        self_test()
        return 0
    if not arguments or arguments[0].startswith("-"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    reports = {}
    for name in arguments[1:]:
        with open(name, "rb") as file:
            reports[name] = file.read()
    print(recompute(Directory(arguments[0]), reports))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Difference as difference:
        print(difference, file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"A file cannot be read: {error}", file=sys.stderr)
        sys.exit(1)
