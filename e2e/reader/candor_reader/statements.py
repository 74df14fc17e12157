"""Structures of statements.md, consent.md, erasure.md and cell.md, decoded and checked in form."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import cbor, keys
from .cbor import Fields
from .errors import Refused
from .keys import SigningKey

# Longest encodings, in bytes (statements.md, "Limits").
MAX_STATEMENT = 160 * 1024
MAX_RECORD = MAX_STATEMENT + 2048
MAX_HEAD = 640 * 1024
MAX_SIGNED_HEAD = MAX_HEAD + 128
MAX_ACKNOWLEDGEMENT = 512
MAX_CELL_KEYS = 2048
MAX_CELL_DESCRIPTION = 1024 * 1024

MAX_U32 = 2**32 - 1
#: Most devices of an account that are not revoked.
MAX_DEVICES = 64
#: Longest text of a consent, in bytes.
MAX_TEXT = 256
#: Longest consent, in milliseconds: 13 months of 31 days.
MAX_CONSENT_MS = 13 * 31 * 86_400_000

GENESIS, DEVICE_ADDED, EPOCH, CONSENT, WITHDRAWAL = range(1, 6)
RE_ANCHORED, ERASURE_ASKED, ERASURE_CANCELLED, DEVICE_REVOKED = range(6, 10)
FULL, WRITE_ONLY = 1, 2
BACKUP, SYNC = 1, 2


def ascending(items: list[bytes], what: str) -> None:
    """Refuse a list of ids that does not ascend strictly."""
    if any(a >= b for a, b in zip(items, items[1:])):
        raise Refused(f"{what}: ids do not ascend")


# -- entry and record (statements.md, "Entry", "Record") -------------------------------------


@dataclass(frozen=True)
class Entry:
    account: bytes
    sequence: int
    previous: bytes
    kind: int
    signer: bytes | None
    time: int
    label: bytes
    body: bytes

    @staticmethod
    def decode(raw: bytes) -> Entry:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "entry")
        f.version()
        entry = Entry(
            account=f.bytes(1, 16),
            sequence=f.uint(2),
            previous=f.bytes(3, 32),
            kind=f.uint(4),
            signer=f.bytes(5, 16) if f.has(5) else None,
            time=f.signed(6),
            label=f.bytes(7, 32),
            body=f.bytes(8),
        )
        f.done()
        return entry


@dataclass(frozen=True)
class Statement:
    """A signed entry, and its commitment's salt."""

    signed: bytes
    salt: bytes
    raw_entry: bytes
    entry: Entry
    ed_signature: bytes
    ml_signature: bytes

    @staticmethod
    def decode(signed: bytes, salt: bytes) -> Statement:
        f = Fields(cbor.decode(signed, MAX_STATEMENT), "statement")
        raw_entry = f.bytes(0)
        pair = f.map(1)
        ed, ml = pair.bytes(0, 64), pair.bytes(1, 3309)
        pair.done()
        f.done()
        return Statement(signed, salt, raw_entry, Entry.decode(raw_entry), ed, ml)

    def commitment(self) -> bytes:
        return keys.hmac_sha256(self.salt, self.signed)

    def signed_by(self, key: SigningKey) -> bool:
        return key.valid(keys.label("candor statement") + self.raw_entry, self.ed_signature, self.ml_signature)


@dataclass(frozen=True)
class Acknowledgement:
    raw: bytes
    signature: bytes
    cell: bytes
    serial: int
    account: bytes
    sequence: int
    link: bytes
    statement: bytes
    time: int

    @staticmethod
    def decode(encoded: bytes) -> Acknowledgement:
        return Acknowledgement.of(cbor.decode(encoded, MAX_ACKNOWLEDGEMENT + 128))

    @staticmethod
    def of(value: cbor.Value) -> Acknowledgement:
        outside = Fields(value, "acknowledgement")
        raw, signature = outside.bytes(0), outside.bytes(1, 64)
        outside.done()
        f = Fields(cbor.decode(raw, MAX_ACKNOWLEDGEMENT), "acknowledgement")
        f.version()
        ack = Acknowledgement(
            raw,
            signature,
            cell=f.bytes(1, 16),
            serial=f.uint(2, MAX_U32),
            account=f.bytes(3, 16),
            sequence=f.uint(4),
            link=f.bytes(5, 32),
            statement=f.bytes(6, 32),
            time=f.signed(7),
        )
        f.done()
        return ack

    def signed_by(self, public: bytes) -> bool:
        return keys.ed25519_valid(public, self.signature, keys.label("candor acknowledgement") + self.raw)


@dataclass(frozen=True)
class Record:
    sequence: int
    kind: int
    commitment: bytes
    statement: Statement | None
    acknowledgement: Acknowledgement | None

    @staticmethod
    def decode(raw: bytes) -> Record:
        f = Fields(cbor.decode(raw, MAX_RECORD), "record")
        f.version()
        sequence, kind, commitment = f.uint(1), f.uint(2), f.bytes(3, 32)
        statement = None
        if f.has(4):
            inside = f.map(4)
            statement = Statement.decode(inside.bytes(0), inside.bytes(1, 32))
            inside.done()
        ack = Acknowledgement.of(f.any(5)) if f.has(5) else None
        f.done()
        return Record(sequence, kind, commitment, statement, ack)


def link(sequence: int, kind: int, previous: bytes, commitment: bytes) -> bytes:
    """The chain's link at a place (statements.md, "Entry")."""
    parts = keys.label("candor link") + sequence.to_bytes(8, "big") + bytes([kind]) + previous + commitment
    return hashlib.sha256(parts).digest()


# -- bodies (statements.md, "Kinds") ---------------------------------------------------------


def signing_key(f: Fields) -> SigningKey:
    key = SigningKey(f.bytes(0, 32), f.bytes(1, 1952))
    f.done()
    return key


@dataclass(frozen=True)
class Genesis:
    root: SigningKey
    recovery: bytes
    cell: bytes

    @staticmethod
    def decode(raw: bytes) -> Genesis:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "genesis")
        body = Genesis(signing_key(f.map(0)), f.bytes(1, keys.XWING_PUBLIC_BYTES), f.bytes(2, 16))
        f.done()
        return body


@dataclass(frozen=True)
class DeviceAdded:
    device: bytes
    role: int
    key: SigningKey
    agreement: bytes
    sealed_name: bytes

    @staticmethod
    def decode(raw: bytes) -> DeviceAdded:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "device added")
        body = DeviceAdded(
            f.bytes(0, 16),
            f.uint(1, WRITE_ONLY, FULL),
            signing_key(f.map(2)),
            f.bytes(3, keys.XWING_PUBLIC_BYTES),
            f.bytes(4),
        )
        f.done()
        return body


@dataclass(frozen=True)
class Wrap:
    device: bytes | None
    enc: bytes
    ciphertext: bytes


@dataclass(frozen=True)
class Epoch:
    vault: bytes | None
    epoch: int
    public: bytes
    wraps: list[Wrap]
    earlier: bytes

    @staticmethod
    def decode(raw: bytes) -> Epoch:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "epoch")
        f.version()
        vault = f.bytes(1, 16) if f.has(1) else None
        epoch = f.uint(2, MAX_U32, 1)
        public = f.bytes(3, keys.XWING_PUBLIC_BYTES)
        # Lengths of an encapsulated key and of its ciphertext are not checked here: others than the right ones do not open.
        wraps = [Wrap(w.bytes(0, 16) if w.has(0) else None, w.bytes(1), w.bytes(2)) for w in f.maps(4, MAX_DEVICES + 1, 1)]
        body = Epoch(vault, epoch, public, wraps, f.bytes(5))
        f.done()
        body.check()
        return body

    def check(self) -> None:
        """The shape that every epoch has (statements.md, "Rules", 5)."""
        if (self.epoch == 1) != (not self.earlier):
            raise Refused("epoch: exactly the first has no keys of earlier ones")
        if self.wraps[0].device is not None:
            raise Refused("epoch: its first wrap is not for the recovery key")
        names = self.devices()
        if len(names) != len(self.wraps) - 1:
            raise Refused("epoch: it is wrapped to the recovery key twice")
        ascending(names, "epoch")

    def devices(self) -> list[bytes]:
        """The devices to which it is wrapped."""
        return [wrap.device for wrap in self.wraps if wrap.device is not None]


@dataclass(frozen=True)
class Consent:
    """consent.md."""

    subject: bytes
    device: bytes
    service: int
    vault: bytes | None

    @staticmethod
    def decode(raw: bytes) -> Consent:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "consent")
        f.version()
        subject, device, service = f.bytes(1, 16), f.bytes(2, 16), f.uint(3, 5, 1)
        vault = f.bytes(4, 16) if f.has(4) else None
        if (vault is not None) != (service in (BACKUP, SYNC)):
            raise Refused("consent: a vault stands exactly in those for backup and sync")
        recipient = f.map(5)
        recipient.bytes(0, 16)
        recipient.text(1, MAX_TEXT)
        recipient.text(2, MAX_TEXT)
        recipient.done()
        f.text(6, MAX_TEXT)
        f.bytes(7, 32)
        _numbers(f, 8, 5)
        _numbers(f, 9, 4)
        f.uint(10, 1, 1)
        f.uint(11, MAX_U32)
        f.bytes(12, 32)
        f.text(13, MAX_TEXT)
        f.uint(14, 3, 1)
        f.uint(15, 2, 1)
        starts, ends = f.signed(16), f.signed(17)
        if not starts < ends <= starts + MAX_CONSENT_MS:
            raise Refused("consent: it ends before it begins, or too late")
        f.text(18, MAX_TEXT)
        if f.has(19):
            f.bytes(19, 32)
        f.done()
        return Consent(subject, device, service, vault)


def _numbers(f: Fields, key: int, most: int) -> None:
    values = f.list(key, 16, 1)
    good = all(isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= most for v in values)
    if not good or any(a >= b for a, b in zip(values, values[1:])):
        raise Refused(f"consent: field {key} is not an ascending list of known numbers")


@dataclass(frozen=True)
class Withdrawal:
    service: int
    vault: bytes | None

    @staticmethod
    def decode(raw: bytes) -> Withdrawal:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "withdrawal")
        f.version()
        body = Withdrawal(f.uint(1, 5, 1), f.bytes(2, 16) if f.has(2) else None)
        f.done()
        return body


@dataclass(frozen=True)
class Mark:
    """A head named by its counter and hash."""

    counter: int
    hash: bytes


@dataclass(frozen=True)
class ReAnchor:
    before: tuple[int, bytes]
    now: tuple[int, bytes]
    heads: dict[bytes, Mark | None]

    @staticmethod
    def decode(raw: bytes) -> ReAnchor:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "re-anchoring")
        f.version()
        places = []
        for key in (1, 2):
            where = f.map(key)
            places.append((where.uint(0), where.bytes(1, 32)))
            where.done()
        heads: dict[bytes, Mark | None] = {}
        order = []
        for head in f.maps(3):
            vault = head.bytes(0, 16)
            before = _mark(head.map(1))
            now = _mark(head.map(2)) if head.has(2) else None
            if now and not (now.counter < before.counter or (now.counter == before.counter and now.hash != before.hash)):
                raise Refused("re-anchoring: a head that is not older")
            order.append(vault)
            heads[vault] = now
        ascending(order, "re-anchoring")
        for key in (4, 5):
            if f.has(key):
                _log_state(f.map(key))
        f.done()
        return ReAnchor(places[0], places[1], heads)


def _mark(f: Fields) -> Mark:
    mark = Mark(f.uint(0), f.bytes(1, 32))
    f.done()
    return mark


def _log_state(f: Fields) -> None:
    """A state of a log: origin, size, root. Nothing of it is used here."""
    f.text(0)
    f.uint(1)
    f.bytes(2, 32)
    f.done()


@dataclass(frozen=True)
class DeviceRevoked:
    device: bytes
    pins: dict[bytes, Mark]

    @staticmethod
    def decode(raw: bytes) -> DeviceRevoked:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "revocation")
        f.version()
        device = f.bytes(1, 16)
        pins: dict[bytes, Mark] = {}
        order = []
        for head in f.maps(2):
            vault = head.bytes(0, 16)
            order.append(vault)
            pins[vault] = Mark(head.uint(1, least=1), head.bytes(2, 32))
        ascending(order, "revocation")
        f.done()
        return DeviceRevoked(device, pins)


@dataclass(frozen=True)
class ErasureAsked:
    """erasure.md, "Asking"."""

    vault: bytes | None

    @staticmethod
    def decode(raw: bytes) -> ErasureAsked:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "erasure asked")
        f.version()
        body = ErasureAsked(f.bytes(1, 16) if f.has(1) else None)
        f.done()
        return body


@dataclass(frozen=True)
class ErasureCancelled:
    asked: bytes

    @staticmethod
    def decode(raw: bytes) -> ErasureCancelled:
        f = Fields(cbor.decode(raw, MAX_STATEMENT), "erasure cancelled")
        f.version()
        body = ErasureCancelled(f.bytes(1, 32))
        f.done()
        return body


# -- head (statements.md, "Head") ------------------------------------------------------------


@dataclass(frozen=True)
class RunKey:
    number: int
    epoch: int
    enc: bytes
    sealed: bytes


@dataclass(frozen=True)
class Head:
    raw: bytes
    signature: bytes
    hash: bytes
    account: bytes
    vault: bytes
    counter: int
    previous: bytes | None
    manifest: bytes
    epoch: int
    device: bytes
    time: int
    runs: list[RunKey] = field(default_factory=list)

    @staticmethod
    def decode(encoded: bytes) -> Head:
        outside = Fields(cbor.decode(encoded, MAX_SIGNED_HEAD), "head")
        raw, signature = outside.bytes(0), outside.bytes(1, 64)
        outside.done()
        f = Fields(cbor.decode(raw, MAX_HEAD), "head")
        f.version()
        account, vault = f.bytes(1, 16), f.bytes(2, 16)
        counter = f.uint(3, least=1)
        previous = f.bytes(4, 32) if f.has(4) else None
        if (previous is None) != (counter == 1):
            raise Refused("head: only the first has none before it")
        manifest, epoch, device, time = f.bytes(5, 32), f.uint(6, MAX_U32, 1), f.bytes(7, 16), f.signed(8)
        condemned = f.list(9, 16_384)
        if not all(isinstance(name, bytes) and len(name) == 32 for name in condemned):
            raise Refused("head: condemned objects are named by 32 bytes")
        ascending(condemned, "head")
        if manifest in condemned:
            raise Refused("head: it condemns its own manifest")
        runs = []
        if f.has(10):
            runs = [
                RunKey(r.uint(0, MAX_U32, 1), r.uint(1, MAX_U32, 1), r.bytes(2, keys.ENC_BYTES), r.bytes(3, 80))
                for r in f.maps(10, 16, 1)
            ]
            if any(a.number <= b.number for a, b in zip(runs, runs[1:])):
                raise Refused("head: runs do not descend")
            if runs[0].number != epoch or condemned:
                raise Refused("head: a run that is not the head's own first, or that condemns")
        f.done()
        hashed = keys.derive_hash("candor 2026 head v1", encoded)
        return Head(raw, signature, hashed, account, vault, counter, previous, manifest, epoch, device, time, runs)

    def signed_by(self, public: bytes) -> bool:
        return keys.ed25519_valid(public, self.signature, keys.label("candor head") + self.raw)

    def mark(self) -> Mark:
        return Mark(self.counter, self.hash)


# -- a cell's keys (cell.md, "CellKeys") -----------------------------------------------------


def cell_id(root: bytes) -> bytes:
    return keys.derive_hash("candor 2026 cell id v1", root)[:16]


@dataclass(frozen=True)
class CellKeys:
    raw: bytes
    signature: bytes
    cell: bytes
    serial: int
    acknowledgement: bytes

    @staticmethod
    def of(value: cbor.Value) -> CellKeys:
        outside = Fields(value, "cell keys")
        raw, signature = outside.bytes(0), outside.bytes(1, 64)
        outside.done()
        return CellKeys.decode(raw, signature)

    @staticmethod
    def decode(raw: bytes, signature: bytes = b"") -> CellKeys:
        f = Fields(cbor.decode(raw, MAX_CELL_KEYS), "cell keys")
        f.version()
        result = CellKeys(raw, signature, f.bytes(1, 16), f.uint(2, MAX_U32, 1), f.bytes(3, 32))
        f.signed(4)
        f.text(5)
        f.text(6)
        f.uint(7, MAX_U32)
        if f.has(8):
            f.bytes(8, 32)
        if f.has(9):
            f.uint(9, MAX_U32)
        if f.has(10):
            _log_state(f.map(10))
        f.done()
        return result

    def signed_by(self, root: bytes) -> bool:
        return keys.ed25519_valid(root, self.signature, keys.label("candor cell keys") + self.raw)


def cell_description(raw: bytes) -> list[CellKeys]:
    """All generations, oldest first (api.md, "Bodies", CellDescription)."""
    f = Fields(cbor.decode(raw, MAX_CELL_DESCRIPTION), "cell description")
    f.version()
    generations = [CellKeys.of(value) for value in f.list(1, 64, 1)]
    f.done()
    if any(a.serial >= b.serial for a, b in zip(generations, generations[1:])):
        raise Refused("cell keys: serials do not ascend")
    return generations
