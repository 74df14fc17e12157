"""Directory trees (tree.md): roots, parts, lists and entries, and the walk through them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Callable, Iterator

from . import cbor
from .cbor import Cursor, Fields
from .errors import Refused

FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = range(7)

# Limits; lengths are in bytes.
MAX_PART = 2 * 1024 * 1024
MAX_ENTRIES = 65_536
MAX_ENTRY = 1024 * 1024
MAX_REFERENCES = 2_048
#: Deepest nesting of directories, the top included.
MAX_DEPTH = 2_048
#: Most bytes of parts and lists that a walk keeps for the directories that it is inside of.
MAX_HELD = 64 * 1024 * 1024
#: Longest target of a symbolic link, and longest path of a source.
MAX_PATH = 4_095
#: Most stretches of data of one file.
MAX_STRETCHES = 8_192
MAX_XATTRS = 1_024
MAX_XATTR_VALUE = 65_536
#: Most sources of one snapshot.
MAX_SOURCES = 256

#: A chunk's id and the length of its plaintext.
Reference = tuple[bytes, int]


def valid_name(name: bytes) -> bool:
    """Whether a directory may hold something of this name."""
    return 1 <= len(name) <= 255 and b"/" not in name and b"\x00" not in name and name not in (b".", b"..")


def references(raw: bytes, what: str, least: int = 0) -> list[Reference]:
    """References, one after the other (tree.md, "Encoding")."""
    if len(raw) % 36 or not 36 * least <= len(raw) <= 36 * MAX_REFERENCES:
        raise Refused(f"{what}: its references are not {least} to {MAX_REFERENCES} times 36 bytes")
    result = []
    for at in range(0, len(raw), 36):
        length = int.from_bytes(raw[at + 32 : at + 36], "big")
        if length == 0:
            raise Refused(f"{what}: a reference to nothing")
        result.append((raw[at : at + 32], length))
    return result


@dataclass(frozen=True)
class Content:
    """References at the top, and how many levels of lists are between them and what they lead to."""

    references: list[Reference]
    levels: int


@dataclass(frozen=True)
class Entry:
    """An entry of a directory (tree.md, "Entry"); what its kind does not have is empty."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    time: int
    xattrs: list[tuple[bytes, bytes]]
    group: bytes | None
    content: Content
    size: int
    #: Stretches of data, as pairs of offset and length.
    stretches: list[tuple[int, int]]
    target: bytes
    device: tuple[int, int]
    #: Of one file with several names: equal for the same group and the same entry apart from the name.
    same_file: bytes | None

    @property
    def refused(self) -> bool:
        """Whether its name alone is one that no directory may hold."""
        return not valid_name(self.name)

    @staticmethod
    def of(value: cbor.Value, encoded_length: int) -> Entry:
        """An entry that was decoded from this many bytes."""
        if encoded_length > MAX_ENTRY:
            raise Refused("an entry has more than 1 MiB")
        f = Fields(value, "entry")
        name = f.bytes(0)
        kind, mode = f.uint(1, BLOCK), f.uint(2, 0o7777)
        uid, gid = f.uint(3, 2**32 - 1), f.uint(4, 2**32 - 1)
        time = f.signed(5)
        xattrs = _xattrs(f) if f.has(6) else []
        group = f.bytes(7, 16) if kind != DIRECTORY and f.has(7) else None
        content = Content([], 0)
        size = 0
        stretches: list[tuple[int, int]] = []
        target = b""
        device = (0, 0)
        if kind in (FILE, DIRECTORY):
            content = _content(f)
        if kind == FILE:
            size = f.uint(10, 2**63 - 1)
            stretches = _stretches(f.list(11, 2 * MAX_STRETCHES), size) if f.has(11) else [(0, size)] if size else []
            if content.levels == 0 and sum(n for _, n in content.references) != sum(n for _, n in stretches):
                raise Refused("entry: its chunks are not as long as its data")
            if content.levels and not stretches:
                raise Refused("entry: chunks of a file without data")
        elif kind == SYMLINK:
            target = f.bytes(12, most=MAX_PATH)
            if not target or b"\x00" in target:
                raise Refused("entry: a symbolic link leads nowhere")
        elif kind in (CHARACTER, BLOCK):
            numbers = f.list(13, 2, 2)
            if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**32 for n in numbers):
                raise Refused("entry: a device's numbers have 32 bits each")
            device = (numbers[0], numbers[1])
        f.done()
        same = None
        if group is not None:
            rest = {key: item for key, item in value.items() if key != 0}
            same = hashlib.sha256(cbor.encode(rest)).digest()
        return Entry(name, kind, mode, uid, gid, time, xattrs, group, content, size, stretches, target, device, same)


def _xattrs(f: Fields) -> list[tuple[bytes, bytes]]:
    result: list[tuple[bytes, bytes]] = []
    for pair in f.list(6, MAX_XATTRS, 1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, bytes) for part in pair)):
            raise Refused("entry: an attribute is not a pair of byte strings")
        name, value = pair
        if not 1 <= len(name) <= 255 or b"\x00" in name or len(value) > MAX_XATTR_VALUE:
            raise Refused("entry: an attribute has a name or value that none has")
        if result and result[-1][0] >= name:
            raise Refused("entry: attributes do not ascend")
        result.append((name, value))
    return result


def _content(f: Fields) -> Content:
    refs = references(f.bytes(8), "entry")
    levels = f.uint(9, 3, 1) if f.has(9) else 0
    if levels and not refs:
        raise Refused("entry: levels above nothing")
    return Content(refs, levels)


def _stretches(flat: list[cbor.Value], size: int) -> list[tuple[int, int]]:
    """The data map (tree.md, "Content and holes")."""
    if len(flat) % 2:
        raise Refused("entry: a gap without a length")
    result = []
    at = holes = 0
    for place in range(0, len(flat), 2):
        gap, length = flat[place], flat[place + 1]
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (gap, length)):
            raise Refused("entry: a data map has something else than numbers")
        if length == 0 or (gap == 0 and place):
            raise Refused("entry: a data map with an empty stretch or gap")
        result.append((at + gap, length))
        at += gap + length
        holes += gap
        if at > size:
            raise Refused("entry: data behind the file's end")
    if holes == 0 and at == size:
        raise Refused("entry: a data map without a hole")
    return result


# -- records ---------------------------------------------------------------------------------


def iter_part(raw: bytes) -> Iterator[Entry]:
    """Entries of a part, one after another; the part is right only if the last one was reached."""
    if len(raw) > MAX_PART:
        raise Refused("a part has more than 2 MiB")
    cursor = Cursor(raw)
    if cursor.map() != 2 or cursor.uint() != 0:
        raise Refused("a part is a map of version and entries")
    if cursor.uint() != 1:
        raise Refused("a part has an unknown version")
    if cursor.uint() != 1:
        raise Refused("a part is a map of version and entries")
    count = cursor.array(MAX_ENTRIES)
    if count == 0:
        raise Refused("a part without entries")
    last = b""
    for number in range(count):
        start = cursor.at
        value = cursor.value()
        entry = Entry.of(value, cursor.at - start)
        if number and entry.name <= last:
            raise Refused("names do not ascend")
        last = entry.name
        yield entry
    cursor.finish()


def decode_list(raw: bytes) -> list[Reference]:
    """The references of a list chunk."""
    f = Fields(cbor.decode(raw), "list chunk")
    f.version()
    result = references(f.bytes(1), "list chunk", least=1)
    f.done()
    return result


@dataclass(frozen=True)
class Root:
    """A root record: the parts of the top directory, and where its entries came from."""

    content: Content
    origins: list[tuple[bytes, bytes]]

    @staticmethod
    def decode(raw: bytes) -> Root:
        f = Fields(cbor.decode(raw), "root record")
        f.version()
        refs, levels = references(f.bytes(1), "root record"), f.uint(2, 3)
        if levels and not refs:
            raise Refused("root record: levels above nothing")
        origins: list[tuple[bytes, bytes]] = []
        for pair in f.list(3, MAX_SOURCES):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, bytes) for part in pair)):
                raise Refused("root record: a source is not a pair of byte strings")
            name, path = pair
            if not valid_name(name) or not path.startswith(b"/") or b"\x00" in path or len(path) > MAX_PATH:
                raise Refused("root record: a source has a name or path that none has")
            if origins and origins[-1][0] >= name:
                raise Refused("root record: sources do not ascend")
            origins.append((name, path))
        f.done()
        return Root(Content(refs, levels), origins)


# -- the walk --------------------------------------------------------------------------------

#: Gives the plaintext of a chunk of the tree stream.
ReadChunk = Callable[[Reference], bytes]

#: Steps of a walk: into a directory, something else, out of a directory, an entry whose name is refused.
ENTER, LEAF, LEAVE, REFUSED = range(4)


class Held:
    """Bytes of parts and lists that a walk keeps."""

    def __init__(self) -> None:
        self.bytes = 0

    def take(self, count: int) -> None:
        """Keep so many bytes more, or fewer."""
        self.bytes += count
        if self.bytes > MAX_HELD:
            raise Refused("a tree needs more than 64 MiB for the directories that it is inside of")


def leaves(content: Content, read: ReadChunk, held: Held) -> Iterator[Reference]:
    """What content leads to, through its list chunks (tree.md, "List chunk")."""
    stack: list[tuple[Iterator[Reference], int]] = [(iter(content.references), 0)]
    while stack:
        reference = next(stack[-1][0], None)
        if reference is None:
            held.take(-stack.pop()[1])
        elif len(stack) <= content.levels:
            raw = read(reference)
            held.take(len(raw))
            stack.append((iter(decode_list(raw)), len(raw)))
        else:
            yield reference


def _entries(content: Content, read: ReadChunk, held: Held) -> Iterator[Entry]:
    """The entries of a directory; each part is checked whole before any of it is used."""
    last: bytes | None = None
    for reference in leaves(content, read, held):
        if reference[1] > MAX_PART:
            raise Refused("a part has more than 2 MiB")
        raw = read(reference)
        held.take(len(raw))
        for entry in iter_part(raw):
            if last is not None and entry.name <= last:
                raise Refused("names do not ascend")
            last = entry.name
        yield from iter_part(raw)
        held.take(-len(raw))


def walk(root: Root, read: ReadChunk) -> Iterator[tuple[int, tuple[bytes, ...], Entry]]:
    """Everything in a tree, directories in the order of their names, one inside the other.

    Each step has the names of the directories above, and the entry. A directory is entered and left;
    entries with refused names are told and not followed.
    """
    held = Held()
    path: list[bytes] = []
    inside: list[Entry] = []
    stack = [_entries(root.content, read, held)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            if inside:
                path.pop()
                yield LEAVE, tuple(path), inside.pop()
        elif entry.refused:
            yield REFUSED, tuple(path), entry
        elif entry.kind == DIRECTORY:
            yield ENTER, tuple(path), entry
            if len(stack) >= MAX_DEPTH:
                raise Refused("directories are nested deeper than 2,048")
            path.append(entry.name)
            inside.append(entry)
            stack.append(_entries(entry.content, read, held))
        else:
            yield LEAF, tuple(path), entry
