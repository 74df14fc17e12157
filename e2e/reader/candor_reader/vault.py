"""Sealed objects, packs, index objects and manifests (vault.md)."""

from __future__ import annotations

import hmac
import os
import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from typing import Callable, Iterator

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from . import cbor, keys
from .cbor import Fields
from .errors import Missing, Refused

#: Types of objects.
PACK, INDEX, MANIFEST = 1, 2, 3
# Lengths in bytes: a header, a segment's plaintext, and the same sealed.
HEADER = 74
SEGMENT = 65_536
SEALED_SEGMENT = SEGMENT + 16
#: The sizes that an object may have: 64 KiB to 16 MiB.
SIZES = frozenset(1 << k for k in range(16, 25))
#: Plaintext of the largest object, in bytes.
MAX_PLAINTEXT = 16_773_046
#: Longest body of an index object or a manifest, in bytes.
MAX_BODY = MAX_PLAINTEXT - 4
#: Longest chunk, and longest plaintext of a frame, in bytes.
MAX_CHUNK = 4_194_304
#: Most snapshots, and most index objects, of one manifest.
MAX_SNAPSHOTS = 10_000
MAX_INDEXES = 16_384
#: Longest name of a backup set, in bytes.
MAX_NAME = 128
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

#: Gives the key behind a header's epoch, or None.
KeyOf = Callable[[int], bytes | None]


# -- sealed objects --------------------------------------------------------------------------


class SealedObject:
    """A sealed object in an open file, whose segments are opened as they are needed.

    The file's size and name are checked apart from this (`check_file`).
    """

    def __init__(self, fd: int, size: int, account: bytes, vault: bytes, kind: int, key_of: KeyOf) -> None:
        self.fd = fd
        header = os.pread(fd, HEADER, 0)
        if len(header) < HEADER or header[:4] != b"CNDR":
            raise Refused("a sealed object has no proper header")
        if header[4:6] != b"\x01\x01":
            raise Refused(f"a sealed object has format {header[4]}, suite {header[5]}, which are not known")
        self.epoch = int.from_bytes(header[6:10], "big")
        key = key_of(self.epoch)
        if key is None:
            raise Refused("a sealed object does not open: there is no key of its epoch")
        object_key, commitment = keys.object_keys(key, header[10:42], account, vault, self.epoch, kind)
        if not hmac.compare_digest(commitment, header[42:74]):
            raise Refused("a sealed object does not open: its commitment is another one")
        self._aead = AESGCM(object_key)
        self.segments = -(-(size - HEADER) // SEALED_SEGMENT)
        self.length = size - HEADER - 16 * self.segments
        if self.segments < 1 or self.length <= SEGMENT * (self.segments - 1):
            raise Refused("a sealed object has a length that none has")

    def segment(self, number: int) -> bytes:
        """The plaintext of one segment."""
        sealed = os.pread(self.fd, SEALED_SEGMENT, HEADER + number * SEALED_SEGMENT)
        nonce = number.to_bytes(11, "big") + bytes([number == self.segments - 1])
        try:
            return self._aead.decrypt(nonce, sealed, None)
        except (InvalidTag, ValueError):
            raise Refused("a sealed object does not open: a segment is damaged") from None

    def read(self, start: int, length: int) -> bytes:
        """A range of the plaintext."""
        if start < 0 or length < 0 or start + length > self.length:
            raise Refused("a range lies outside of its object")
        if length == 0:
            return b""
        first, last = start // SEGMENT, (start + length - 1) // SEGMENT
        joined = bytearray()
        for number in range(first, last + 1):
            joined += self.segment(number)
        begin = start - first * SEGMENT
        return bytes(memoryview(joined)[begin : begin + length])


def check_file(fd: int, name: bytes) -> int:
    """Size and name of an object's file (vault.md, "Sizes and padding", "Reading a snapshot"); its size."""
    size = os.fstat(fd).st_size
    if size not in SIZES:
        raise Refused(f"object {name.hex()} has a size that none has")
    hasher = blake3()
    at = 0
    while at < size:
        part = os.pread(fd, min(1 << 20, size - at), at)
        if not part:
            break
        hasher.update(part)
        at += len(part)
    if hasher.digest() != name:
        raise Refused(f"object {name.hex()} is not what its name promises")
    return size


def body_of(sealed: SealedObject) -> bytes:
    """Body of an index object or a manifest; what follows it has to be zeros."""
    plain = sealed.read(0, sealed.length)
    if len(plain) < 4:
        raise Refused("an object is too short for a body")
    length = int.from_bytes(plain[:4], "big")
    if length > len(plain) - 4 or plain.count(0, 4 + length) != len(plain) - 4 - length:
        raise Refused("an object's body or padding is malformed")
    return plain[4 : 4 + length]


# -- packs -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """A frame as a pack's table has it: lengths in bytes, and how many chunks it holds."""

    codec: int
    start: int
    stored: int
    plain: int
    chunks: int


@dataclass(frozen=True)
class Table:
    """A pack's table; `names` are the chunks' ids and lengths, frame by frame."""

    stream: int
    frames: list[Frame]
    names: list[tuple[bytes, int]]
    frames_end: int

    @staticmethod
    def decode(raw: bytes) -> Table:
        if len(raw) < 6 or raw[0] != 1 or raw[1] > 1:
            raise Refused("a pack's table has an unknown version or stream")
        count = int.from_bytes(raw[2:6], "big")
        if count < 1 or 13 * count > len(raw) - 6:
            raise Refused("a pack's table is too short for its frames")
        frames = []
        start = total = 0
        for at in range(6, 6 + 13 * count, 13):
            codec = raw[at]
            stored, plain, chunks = (int.from_bytes(raw[at + o : at + o + 4], "big") for o in (1, 5, 9))
            if not (1 <= plain <= MAX_CHUNK and chunks >= 1 and stored >= 1):
                raise Refused("a pack's frame has lengths that none has")
            if not ((codec == 0 and stored == plain) or (codec == 1 and stored < plain)):
                raise Refused("a pack's frame has an unknown codec, or lengths that do not fit it")
            frames.append(Frame(codec, start, stored, plain, chunks))
            start += stored
            total += chunks
            if start > MAX_PLAINTEXT:
                raise Refused("a pack's frames are longer than any pack")
        at = 6 + 13 * count
        if len(raw) - at != 36 * total:
            raise Refused("a pack's table does not end with its last chunk")
        names = []
        for frame in frames:
            left = frame.plain
            for _ in range(frame.chunks):
                length = int.from_bytes(raw[at + 32 : at + 36], "big")
                if not 1 <= length <= MAX_CHUNK:
                    raise Refused("a chunk has a length that none has")
                names.append((raw[at : at + 32], length))
                left -= length
                at += 36
            if left:
                raise Refused("a frame's chunks do not fill it")
        return Table(raw[1], frames, names, start)


class Pack:
    """A pack whose table was checked, from which frames are read."""

    def __init__(self, sealed: SealedObject, check_padding: bool) -> None:
        self.sealed = sealed
        if sealed.length < 4:
            raise Refused("a pack is too short")
        length = int.from_bytes(sealed.read(sealed.length - 4, 4), "big")
        start = sealed.length - 4 - length
        if start < 0:
            raise Refused("a pack's table is longer than the pack")
        raw_table = sealed.read(start, length)
        self.table_hash = blake3(raw_table).digest()
        table = Table.decode(raw_table)
        self._frames = table.frames
        if table.frames_end > start:
            raise Refused("a pack's frames run into its table")
        if check_padding:
            at = table.frames_end
            while at < start:
                part = sealed.read(at, min(1 << 20, start - at))
                if part.count(0) != len(part):
                    raise Refused("a pack's padding is not zeros")
                at += len(part)

    def frame(self, number: int) -> bytes:
        frame = self._frames[number]
        return unpack_frame(frame, self.sealed.read(frame.start, frame.stored))


def unpack_frame(frame: Frame, stored: bytes) -> bytes:
    """A frame's plaintext, never more of it than its table says (vault.md, "Frames")."""
    if frame.codec == 0:
        return stored
    try:
        parameters = zstandard.get_frame_parameters(stored)
        if stored[:4] != _ZSTD_MAGIC or parameters.dict_id:
            raise Refused("a frame is not one plain zstd frame")
        if parameters.content_size not in (frame.plain, zstandard.CONTENTSIZE_UNKNOWN):
            raise Refused("a frame's plaintext has another length than its table says")
        plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=frame.plain, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Refused("a frame does not decompress into what its table says") from None
    if len(plain) != frame.plain:
        raise Refused("a frame's plaintext has another length than its table says")
    return plain


# -- index objects and manifests -------------------------------------------------------------


def index_packs(body: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Name, size and table of each pack of an index object's body, the tables not yet decoded."""
    if len(body) < 5 or body[0] != 1:
        raise Refused("an index object has an unknown version")
    count = int.from_bytes(body[1:5], "big")
    if count < 1:
        raise Refused("an index object lists no pack")
    at = 5
    for _ in range(count):
        if len(body) - at < 40:
            raise Refused("an index object is too short for its packs")
        name = body[at : at + 32]
        size, length = (int.from_bytes(body[at + o : at + o + 4], "big") for o in (32, 36))
        at += 40
        if size not in SIZES or length > len(body) - at:
            raise Refused("an index object lists a pack of a size that none has")
        yield name, size, body[at : at + length]
        at += length
    if at != len(body):
        raise Refused("an index object has bytes after its last pack")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as a manifest lists it."""

    id: bytes
    time: int
    device: bytes
    set: str
    root: bytes
    counts: tuple[int, int, int, int, int]
    incomplete: bool


@dataclass(frozen=True)
class Manifest:
    counter: int
    previous: bytes | None
    epoch: int
    snapshots: list[Snapshot]
    indexes: list[tuple[bytes, int]]

    @staticmethod
    def decode(raw: bytes, account: bytes, vault: bytes) -> Manifest:
        f = Fields(cbor.decode(raw, MAX_BODY), "manifest")
        f.version()
        if f.bytes(1, 16) != account or f.bytes(2, 16) != vault:
            raise Refused("a manifest is of another vault")
        counter = f.uint(3, least=1)
        previous = f.bytes(4, 32) if f.has(4) else None
        if (previous is None) != (counter == 1):
            raise Refused("manifest: only the first has none before it")
        epoch = f.uint(5, 2**32 - 1)
        snapshots = []
        for s in f.maps(6, MAX_SNAPSHOTS):
            identity, time, device = s.bytes(0, 16), s.signed(1), s.bytes(2, 16)
            name, root = s.text(3, MAX_NAME), s.bytes(4, 32)
            numbers = s.map(5)
            counts = (numbers.uint(0), numbers.uint(1), numbers.uint(2), numbers.uint(3), numbers.uint(4))
            numbers.done()
            snapshots.append(Snapshot(identity, time, device, name, root, counts, s.bool(6)))
        indexes = [(r.bytes(0, 32), r.uint(1)) for r in f.maps(7, MAX_INDEXES)]
        f.done()
        if len({s.id for s in snapshots}) != len(snapshots) or len({name for name, _ in indexes}) != len(indexes):
            raise Refused("a manifest lists something twice")
        return Manifest(counter, previous, epoch, snapshots, indexes)


# -- reading chunks --------------------------------------------------------------------------

#: Opens an object's file; raises Missing.
OpenFile = Callable[[bytes], int]

#: Most packs that are open at once.
_OPEN_PACKS = 4
#: Most frames that are kept: 24 MiB, if they are as long as they may be.
_FRAMES_KEPT = 6
#: Most places of one chunk that are tried.
_PLACES_TRIED = 16


class Vault:
    """One vault: where its chunks are, kept in a temporary file, and the chunks themselves."""

    def __init__(self, account: bytes, vault: bytes, open_file: OpenFile, key_of: KeyOf, chunk_key: bytes) -> None:
        self.account, self.vault = account, vault
        self.open_file, self.key_of, self._chunk_key = open_file, key_of, chunk_key
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript(
            """
            PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
            CREATE TABLE pack (number INTEGER PRIMARY KEY, name BLOB UNIQUE, size INTEGER, hash BLOB);
            CREATE TABLE chunk (name BLOB, pack INTEGER, frame INTEGER, start INTEGER, length INTEGER,
                                PRIMARY KEY (name, pack)) WITHOUT ROWID;
            BEGIN;
            """
        )
        self._packs: OrderedDict[int, Pack] = OrderedDict()
        self._frames: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._checked: set[int] = set()

    def close(self) -> None:
        for pack in self._packs.values():
            os.close(pack.sealed.fd)
        self._packs.clear()
        self.db.close()

    # -- manifests and index objects ---------------------------------------------------------

    def read_body(self, name: bytes, kind: int) -> tuple[bytes, int]:
        """Body and epoch of an index object or a manifest."""
        fd = self.open_file(name)
        try:
            size = check_file(fd, name)
            sealed = SealedObject(fd, size, self.account, self.vault, kind, self.key_of)
            return body_of(sealed), sealed.epoch
        finally:
            os.close(fd)

    def read_manifest(self, name: bytes) -> tuple[Manifest, int]:
        body, epoch = self.read_body(name, MANIFEST)
        return Manifest.decode(body, self.account, self.vault), epoch

    def add_index(self, name: bytes, length: int) -> None:
        """Learn where the chunks of an index object's packs are; what was known already stays."""
        body, _ = self.read_body(name, INDEX)
        if len(body) != length:
            raise Refused("an index object has another length than its manifest says")
        for pack_name, size, raw_table in index_packs(body):
            table = Table.decode(raw_table)
            added = self.db.execute(
                "INSERT OR IGNORE INTO pack (name, size, hash) VALUES (?, ?, ?)",
                (pack_name, size, blake3(raw_table).digest()),
            )
            if added.rowcount == 0:
                continue
            number = added.lastrowid
            self.db.executemany(
                "INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?)",
                ((chunk, number, frame, start, size) for chunk, frame, start, size in _places(table)),
            )

    # -- chunks ------------------------------------------------------------------------------

    def places(self, name: bytes) -> list[tuple[int, int, int, int]]:
        """Pack, frame, start and length of each place of a chunk, the one listed first at the front.

        The first one counts. The others are there for when its pack is missing; nothing that they say of the chunk
        refuses it, since a later run of a write-only device may be a stranger's.
        """
        query = "SELECT pack, frame, start, length FROM chunk WHERE name = ? ORDER BY pack LIMIT ?"
        rows = self.db.execute(query, (name, _PLACES_TRIED)).fetchall()
        if not rows:
            raise Refused(f"chunk {name.hex()} is in no pack that is listed")
        return rows

    def chunk(self, name: bytes, length: int | None = None) -> bytes:
        """A chunk's plaintext, which has the name asked for; from another pack if the first one is missing."""
        first, *others = self.places(name)
        if length is not None and first[3] != length:
            raise Refused("a chunk has another length than its reference says")
        try:
            return self._chunk_at(name, first)
        except Missing as missing:
            for place in others:
                try:
                    return self._chunk_at(name, place)
                except (Missing, Refused):
                    continue
            raise missing

    def _chunk_at(self, name: bytes, place: tuple[int, int, int, int]) -> bytes:
        pack, frame, start, size = place
        data = memoryview(self._frame(pack, frame))[start : start + size]
        if blake3(data, key=self._chunk_key).digest() != name:
            raise Refused(f"chunk {name.hex()} is not what its name promises")
        return bytes(data)

    def _frame(self, pack: int, number: int) -> bytes:
        place = (pack, number)
        if place in self._frames:
            self._frames.move_to_end(place)
            return self._frames[place]
        plain = self._pack(pack).frame(number)
        self._frames[place] = plain
        if len(self._frames) > _FRAMES_KEPT:
            self._frames.popitem(last=False)
        return plain

    def _pack(self, number: int) -> Pack:
        if number in self._packs:
            self._packs.move_to_end(number)
            return self._packs[number]
        name, size, table_hash = self.db.execute(
            "SELECT name, size, hash FROM pack WHERE number = ?", (number,)
        ).fetchone()
        fd = self.open_file(name)
        try:
            first = number not in self._checked
            found = check_file(fd, name) if first else size
            if found != size:
                raise Refused("a pack has another size than its index object says")
            sealed = SealedObject(fd, size, self.account, self.vault, PACK, self.key_of)
            pack = Pack(sealed, check_padding=first)
            if pack.table_hash != table_hash:
                raise Refused("a pack has another table than its index object says")
        except BaseException:
            os.close(fd)
            raise
        self._checked.add(number)
        self._packs[number] = pack
        if len(self._packs) > _OPEN_PACKS:
            os.close(self._packs.popitem(last=False)[1].sealed.fd)
        return pack


def _places(table: Table) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, frame, start and length of each chunk of a pack."""
    names = iter(table.names)
    for number, frame in enumerate(table.frames):
        start = 0
        for _ in range(frame.chunks):
            name, length = next(names)
            yield name, number, start, length
            start += length
