"""Accounts, vaults and whole cell directories that are made up here, for tests alone.

Everything is what docs/formats says, so that each test changes one thing and sees it refused.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Callable

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from candor_reader import cbor, keys, statements as st, tree, vault as v, words
from candor_reader.chain import Chain

SECRET = bytes(range(32))
PHRASE = words.phrase(SECRET)
ACCOUNT, VAULT, OTHER = b"a" * 16, b"v" * 16, b"w" * 16
D1, D2, WO = b"1" * 16, b"2" * 16, b"3" * 16
ROOT_SEED = b"r" * 32
CELL_ROOT = ed25519.Ed25519PrivateKey.from_private_bytes(ROOT_SEED)
CELL_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
CELL = st.cell_id(CELL_ROOT.public_key().public_bytes_raw())
TIME = 1_700_000_000_123_456_789


# -- statements ------------------------------------------------------------------------------


class Signer:
    """Both key pairs of a device or a root."""

    def __init__(self, ed: bytes, ml: bytes) -> None:
        self._ed = ed25519.Ed25519PrivateKey.from_private_bytes(ed)
        self._ml = mldsa.MLDSA65PrivateKey.from_seed_bytes(ml)
        self.public = {0: self._ed.public_key().public_bytes_raw(), 1: self._ml.public_key().public_bytes_raw()}

    def both(self, message: bytes) -> dict[int, bytes]:
        return {0: self._ed.sign(message), 1: self._ml.sign(message)}

    def one(self, message: bytes) -> bytes:
        return self._ed.sign(message)


ROOT = Signer(
    keys.hkdf(SECRET, b"candor/phrase/root/ed25519/1"), keys.hkdf(SECRET, b"candor/phrase/root/ml-dsa-65/1")
)
DEVICES = {name: Signer(name * 2, name[::-1] * 2) for name in (D1, D2, WO)}
RECOVERY = keys.Recovery(PHRASE)


def signed_cbor(label: str, value: dict[int, Any], signer: ed25519.Ed25519PrivateKey | Signer) -> dict[int, bytes]:
    raw = cbor.encode(value)
    message = keys.label(label) + raw
    return {0: raw, 1: signer.one(message) if isinstance(signer, Signer) else signer.sign(message)}


class Builder:
    """Writes the records of a chain; every change to what is right is an argument."""

    def __init__(self) -> None:
        self.records: list[st.Record] = []
        #: Each record without its acknowledgement, and that, as a cell keeps them.
        self.rows: list[tuple[bytes, bytes]] = []
        self.tip = bytes(32)

    def add(
        self, kind: int, body: dict[int, Any] | None, signer: bytes | None = None, key: Signer | None = None, **entry: Any
    ) -> Builder:
        sequence = len(self.records)
        value = {
            0: 1, 1: ACCOUNT, 2: sequence, 3: self.tip, 4: kind, 6: 0, 7: bytes(32),
            8: cbor.encode(body if body is not None else {}),
        }  # fmt: skip
        if signer is not None:
            value[5] = signer
        value |= entry.get("entry", {})
        raw = cbor.encode(value)
        signatures = (key or (ROOT if signer is None else DEVICES[signer])).both(keys.label("candor statement") + raw)
        signed = cbor.encode({0: raw, 1: signatures})
        commitment = keys.hmac_sha256(b"s" * 32, signed)
        self.commitment = commitment
        link = st.link(sequence, kind, self.tip, commitment)
        ack = {0: 1, 1: CELL, 2: 1, 3: ACCOUNT, 4: sequence, 5: link, 6: commitment, 7: 0} | entry.get("ack", {})
        record = {0: 1, 1: sequence, 2: kind, 3: commitment, 4: {0: signed, 1: b"s" * 32}}
        if body is None:
            del record[4]
        acknowledged = signed_cbor("candor acknowledgement", ack, CELL_KEY)
        self.rows.append((cbor.encode(record), cbor.encode(acknowledged)))
        self.records.append(st.Record.decode(cbor.encode(record | {5: acknowledged})))
        self.tip = link
        return self

    def take_back(self) -> Builder:
        """Without the newest record."""
        record = self.records.pop()
        self.rows.pop()
        assert record.statement
        self.tip = record.statement.entry.previous
        return self

    def fold(self) -> Chain:
        chain = Chain(RECOVERY, ACCOUNT, {1: CELL_KEY.public_key().public_bytes_raw()})
        return chain.fold(self.records)


def genesis() -> dict[int, Any]:
    return {0: ROOT.public, 1: RECOVERY.recovery.public, 2: CELL}


def device(name: bytes, role: int = st.FULL, sealed_name: bytes = b"") -> dict[int, Any]:
    return {0: name, 1: role, 2: DEVICES[name].public, 3: bytes(1216), 4: sealed_name}


def epoch(number: int, *devices: bytes, vault: bytes | None = VAULT) -> dict[int, Any]:
    """An epoch that does not open: enough for the rules."""
    wraps: list[dict[int, bytes]] = [{1: bytes(1120), 2: bytes(48)}]
    wraps += [{0: name, 1: bytes(1120), 2: bytes(48)} for name in devices]
    body: dict[int, Any] = {0: 1, 2: number, 3: bytes(1216), 4: wraps, 5: b"" if number == 1 else b"earlier"}
    return body if vault is None else body | {1: vault}


def consent(name: bytes, vault: bytes = VAULT) -> dict[int, Any]:
    return {
        0: 1, 1: ACCOUNT, 2: name, 3: 1, 4: vault, 5: {0: CELL, 1: "me", 2: "here"}, 6: "backup/1", 7: bytes(32),
        8: [1, 2], 9: [1], 10: 1, 11: 30, 12: bytes(32), 13: "en", 14: 1, 15: 1, 16: 0, 17: 1000, 18: "how",
    }  # fmt: skip


def revoked(name: bytes, **pins: st.Head) -> dict[int, Any]:
    heads = sorted(pins.values(), key=lambda head: head.vault)
    return {0: 1, 1: name, 2: [{0: head.vault, 1: head.counter, 2: head.hash} for head in heads]}


def signed_head(
    counter: int, name: bytes = D1, sealed_under: int = 1, vault: bytes = VAULT, **fields: Any
) -> bytes:
    """A signed head; `fields` is a map of what is other than it should be."""
    value: dict[int, Any] = {0: 1, 1: ACCOUNT, 2: vault, 3: counter, 5: b"m" * 32, 6: sealed_under, 7: name, 8: 0, 9: []}
    if counter > 1:
        value[4] = bytes(32)
    value |= fields.get("fields", {})
    return cbor.encode(signed_cbor("candor head", value, DEVICES[name]))


def head(counter: int, name: bytes = D1, sealed_under: int = 1, vault: bytes = VAULT, **more: Any) -> st.Head:
    return st.Head.decode(signed_head(counter, name, sealed_under, vault, **more))


def start() -> Builder:
    """Root, a full device, and the account's first epoch."""
    return Builder().add(1, genesis()).add(2, device(D1)).add(3, epoch(1, D1, vault=None), D1)


def with_vault() -> Builder:
    """A second full device, and a vault of both."""
    return start().add(2, device(D2), D1).add(3, epoch(1, D1, D2), D1).add(4, consent(D1), D1).add(4, consent(D2), D2)


# -- wraps -----------------------------------------------------------------------------------


def hpke_seal(public: bytes, plain: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Encapsulated key and ciphertext of HPKE with X-Wing, in base mode."""
    ml_secret, ml_sealed = mlkem.MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    ephemeral = x25519.X25519PrivateKey.generate()
    x_sealed = ephemeral.public_key().public_bytes_raw()
    x_secret = ephemeral.exchange(x25519.X25519PublicKey.from_public_bytes(public[1184:]))
    shared = keys.combine(ml_secret, x_secret, x_sealed, public[1184:])
    key, nonce = keys.hpke_schedule(shared, info)
    return ml_sealed + x_sealed, AESGCM(key).encrypt(nonce, plain, b"")


def opened_epoch(
    number: int, key: bytes, earlier: list[bytes], *devices: bytes, vault: bytes | None = VAULT
) -> dict[int, Any]:
    """An epoch whose wrap for the recovery key opens."""
    where = keys.place(ACCOUNT, vault, number)
    enc, sealed = hpke_seal(RECOVERY.recovery.public, key, keys.wrap_info(ACCOUNT, vault, number, None))
    body = epoch(number, *devices, vault=vault)
    body[3] = keys.epoch_pair(key, where).public
    body[4][0] = {1: enc, 2: sealed}
    if number > 1:
        under = keys.hkdf(key, b"candor/epoch/earlier/1" + where)
        body[5] = bytes(12) + AESGCM(under).encrypt(bytes(12), b"\x01" + b"".join(earlier), where)
    return body


def sealed_name(first_key: bytes, name: bytes, text: bytes) -> bytes:
    info = b"candor/account/device-name/1" + ACCOUNT + name
    return bytes(12) + AESGCM(keys.hkdf(first_key, info)).encrypt(bytes(12), text, info)


# -- trees -----------------------------------------------------------------------------------


class MadeTree:
    """Chunks of trees, by name."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self.chunks: dict[bytes, bytes] = {}

    def add(self, data: bytes) -> bytes:
        """A reference to a chunk with this content."""
        name = (blake3(data, key=self._key) if self._key else blake3(data)).digest()
        self.chunks[name] = data
        return name + len(data).to_bytes(4, "big")

    @staticmethod
    def entry(name: bytes, kind: int, **more: Any) -> dict[int, Any]:
        fields = {"xattrs": 6, "group": 7, "refs": 8, "levels": 9, "size": 10, "map": 11, "target": 12, "device": 13}
        base = {0: name, 1: kind, 2: more.pop("mode", 0o644), 3: 0, 4: 0, 5: more.pop("time", TIME)}
        return base | {fields[key]: value for key, value in more.items()}

    def file(self, name: bytes, data: bytes, **more: Any) -> dict[int, Any]:
        refs = self.add(data) if data else b""
        return self.entry(name, tree.FILE, **{"refs": refs, "size": len(data)} | more)

    def directory(self, name: bytes, *entries: dict[int, Any], **more: Any) -> dict[int, Any]:
        refs = self.add(cbor.encode({0: 1, 1: list(entries)})) if entries else b""
        return self.entry(name, tree.DIRECTORY, refs=refs, **{"mode": 0o755} | more)

    def raw_root(self, *entries: dict[int, Any]) -> bytes:
        return cbor.encode({0: 1, 1: self.directory(b"", *entries)[8], 2: 0, 3: []})

    def root(self, *entries: dict[int, Any]) -> tree.Root:
        return tree.Root.decode(self.raw_root(*entries))


# -- objects ---------------------------------------------------------------------------------


def seal(key: bytes, place: tuple[bytes, bytes, int], kind: int, plain: bytes, salt: bytes = b"s" * 32) -> bytes:
    """A sealed object (vault.md, "Sealed objects"); `place` is account, vault and epoch."""
    account, vault, number = place
    object_key, commitment = keys.object_keys(key, salt, account, vault, number, kind)
    sealed = b"CNDR\x01\x01" + number.to_bytes(4, "big") + salt + commitment
    parts = [plain[at : at + v.SEGMENT] for at in range(0, len(plain), v.SEGMENT)]
    for place_of, part in enumerate(parts):
        nonce = place_of.to_bytes(11, "big") + bytes([place_of == len(parts) - 1])
        sealed += AESGCM(object_key).encrypt(nonce, part, None)
    return sealed


def room(least: int) -> int:
    """Plaintext bytes of the smallest object that holds so many."""
    for size in sorted(v.SIZES):
        plain = size - v.HEADER - 16 * -(-(size - v.HEADER) // v.SEALED_SEGMENT)
        if plain >= least:
            return plain
    raise AssertionError(least)


def padded_body(body: bytes) -> bytes:
    """The plaintext of an index object or a manifest."""
    return (len(body).to_bytes(4, "big") + body).ljust(room(len(body) + 4), b"\0")


def table(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A table of frames with one chunk each, stored as they are."""
    frames = b"".join(b"\0" + 2 * len(data).to_bytes(4, "big") + b"\0\0\0\1" for _, data in chunks)
    names = b"".join(name + len(data).to_bytes(4, "big") for name, data in chunks)
    return b"\x01\x00" + len(chunks).to_bytes(4, "big") + frames + names


def pack(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The plaintext of a pack."""
    end = table(chunks)
    end += len(end).to_bytes(4, "big")
    frames = b"".join(data for _, data in chunks)
    return frames.ljust(room(len(frames) + len(end)) - len(end), b"\0") + end


def index(packs: list[tuple[bytes, int, bytes]]) -> bytes:
    """The body of an index object: name, size and table of each pack."""
    body = b"\x01" + len(packs).to_bytes(4, "big")
    for name, size, raw in packs:
        body += name + size.to_bytes(4, "big") + len(raw).to_bytes(4, "big") + raw
    return body


# -- cells -----------------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE cell_values (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE accounts (account BLOB NOT NULL PRIMARY KEY, root_key_hash BLOB NOT NULL UNIQUE,
                       tip_sequence BIGINT NOT NULL, tip_link BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE chain (account BLOB NOT NULL, sequence BIGINT NOT NULL, kind BIGINT NOT NULL, commitment BLOB NOT NULL,
                    record BLOB, acknowledgement BLOB NOT NULL, PRIMARY KEY (account, sequence));
CREATE TABLE heads (account BLOB NOT NULL, vault BLOB NOT NULL, counter BIGINT NOT NULL, head BLOB NOT NULL);
CREATE TABLE runs (account BLOB NOT NULL, vault BLOB NOT NULL, counter BIGINT NOT NULL, head BLOB NOT NULL);
"""

#: Keys of epochs: of the account, and of the vault's first and second.
ACCOUNT_KEY, KEY_1, KEY_2 = b"A" * 32, b"K" * 32, b"L" * 32


class MadeCell:
    """A cell's directory with one account; what is changed before `write` is in there."""

    def __init__(self, builder: Builder | None = None) -> None:
        self.builder = builder or self.account()
        self.objects: dict[tuple[bytes, bytes], bytes] = {}
        self.heads: dict[bytes, bytes] = {}
        self.runs: dict[bytes, list[bytes]] = {}
        self._manifests: dict[bytes, bytes] = {}
        self._snapshots: dict[bytes, list[dict[int, Any]]] = {}
        self._indexes: dict[bytes, list[dict[int, Any]]] = {}

    @staticmethod
    def account() -> Builder:
        """Two full devices and a vault of theirs; one that only writes and a vault of its own."""
        named = device(D1, sealed_name=sealed_name(ACCOUNT_KEY, D1, b"desk\x1b[2J"))
        return (
            Builder()
            .add(1, genesis())
            .add(2, named)
            .add(3, opened_epoch(1, ACCOUNT_KEY, [], D1, vault=None), D1)
            .add(2, device(D2), D1)
            .add(3, opened_epoch(1, KEY_1, [], D1, D2), D1)
            .add(4, consent(D1), D1)
            .add(2, device(WO, st.WRITE_ONLY), D1)
            .add(3, opened_epoch(1, KEY_2, [], D1, vault=OTHER), D1)
            .add(4, consent(WO, OTHER), WO)
        )

    def put(self, vault: bytes, data: bytes) -> bytes:
        """Store an object; its name."""
        name = blake3(data).digest()
        self.objects[vault, name] = data
        return name

    def store(
        self,
        vault: bytes,
        key: bytes,
        number: int,
        chunks: dict[bytes, bytes],
        shown: Callable[[list[tuple[bytes, bytes]]], bytes] | None = None,
    ) -> dict[int, Any]:
        """A pack with these chunks, and a reference to its index object; `shown` makes the table that this lists."""
        listed = list(chunks.items())
        place = (ACCOUNT, vault, number)
        sealed = seal(key, place, v.PACK, pack(listed))
        body = index([(self.put(vault, sealed), len(sealed), (shown or table)(listed))])
        return {0: self.put(vault, seal(key, place, v.INDEX, padded_body(body))), 1: len(body)}

    def manifest(
        self, vault: bytes, key: bytes, number: int, counter: int, snapshots: list[Any], indexes: list[Any], **more: Any
    ) -> bytes:
        """The name of a manifest; `fields` is what is other than it should be."""
        value: dict[int, Any] = {0: 1, 1: ACCOUNT, 2: vault, 3: counter, 5: number, 6: snapshots, 7: indexes}
        if counter > 1:
            value[4] = self._manifests.get(vault, bytes(32))
        value |= more.get("fields", {})
        place = (ACCOUNT, vault, more.get("sealed_under", number))
        self._manifests[vault] = self.put(vault, seal(key, place, v.MANIFEST, padded_body(cbor.encode(value))))
        return self._manifests[vault]

    @staticmethod
    def snapshot(identity: int, root: bytes, name: str, by: bytes) -> dict[int, Any]:
        counts = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}
        return {0: bytes([identity]) * 16, 1: 0, 2: by, 3: name, 4: root, 5: counts, 6: False}

    def backup(self, made: MadeTree, *entries: dict[int, Any], name: str = "papers", **more: Any) -> MadeCell:
        """A snapshot of these entries in the vault of the full devices."""
        root = made.add(made.raw_root(*entries))[:32]
        snapshots = self._snapshots.setdefault(VAULT, [])
        indexes = self._indexes.setdefault(VAULT, [])
        snapshots.append(self.snapshot(len(snapshots) + 1, root, name, D1))
        indexes.append(self.store(VAULT, KEY_1, 1, made.chunks, more.get("shown")))
        counter = len(snapshots)
        manifest = self.manifest(VAULT, KEY_1, 1, counter, snapshots, indexes, **more.get("manifest", {}))
        fields = {5: manifest} | more.get("head", {})
        self.heads[VAULT] = signed_head(counter, D1, 1, VAULT, fields=fields)
        return self

    def run(self, made: MadeTree, *entries: dict[int, Any], content: bytes, **more: Any) -> MadeCell:
        """A run of the write-only device: its own snapshot and pack."""
        before = self.runs.setdefault(OTHER, [])
        number = len(before) + 1
        key = bytes([number]) * 32
        root = made.add(made.raw_root(*entries))[:32]
        snapshot = self.snapshot(more.get("identity", number), root, "writes", WO)
        listed = self.store(OTHER, key, number, made.chunks, more.get("shown"))
        manifest = self.manifest(OTHER, key, number, number, [snapshot], [listed], **more.get("manifest", {}))
        public = keys.epoch_pair(KEY_2, keys.place(ACCOUNT, OTHER, 1)).public
        sealed_keys = [(number, key), *more.get("earlier", [])]
        fields: dict[int, Any] = {5: manifest, 10: []}
        for which, secret in sealed_keys:
            info = keys.run_info(ACCOUNT, OTHER, WO, 1, which)
            enc, sealed = hpke_seal(public, secret + content, info)
            fields[10].append({0: which, 1: 1, 2: enc, 3: sealed})
        if before:
            fields[4] = st.Head.decode(before[-1]).hash
        before.append(signed_head(number, WO, number, OTHER, fields=fields))
        self.heads[OTHER] = before[-1]
        return self

    def write(self, folder: Path) -> Path:
        """The directory, which is new."""
        store = folder / "store"
        (folder / "keys").mkdir(parents=True)
        store.mkdir()
        (folder / "keys" / "root.key").write_bytes(cbor.encode({0: 1, 1: 1, 2: ROOT_SEED}))
        db = sqlite3.connect(store / "records.sqlite")
        db.execute("PRAGMA synchronous = OFF")
        db.executescript(SCHEMA)
        acknowledgement = CELL_KEY.public_key().public_bytes_raw()
        cell_keys = {0: 1, 1: CELL, 2: 1, 3: acknowledgement, 4: 0, 5: "me", 6: "here", 7: 30}
        description = cbor.encode({0: 1, 1: [signed_cbor("candor cell keys", cell_keys, CELL_ROOT)]})
        db.execute("INSERT INTO cell_values VALUES ('cell-keys', ?)", (description,))
        tip = (len(self.builder.records) - 1, self.builder.tip)
        db.execute("INSERT INTO accounts VALUES (?, ?, ?, ?)", (ACCOUNT, RECOVERY.root.fingerprint(), *tip))
        for record, (raw, ack) in zip(self.builder.records, self.builder.rows):
            row = (ACCOUNT, record.sequence, record.kind, record.commitment, raw, ack)
            db.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", row)
        for vault, raw in self.heads.items():
            db.execute("INSERT INTO heads VALUES (?, ?, ?, ?)", (ACCOUNT, vault, st.Head.decode(raw).counter, raw))
        for vault, runs in self.runs.items():
            for counter, raw in enumerate(runs, 1):
                db.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", (ACCOUNT, vault, counter, raw))
        db.commit()
        db.close()
        for (vault, name), data in self.objects.items():
            place = object_path(folder, vault, name)
            os.makedirs(place.parent, exist_ok=True)
            place.write_bytes(data)
        return folder


def object_path(folder: Path, vault: bytes, name: bytes) -> Path:
    return folder / "store" / "objects" / ACCOUNT.hex() / vault.hex() / name.hex()[:2] / name.hex()
