"""A cell's directory (storage.md, "A cell's directory"; cell.md), only ever read.

Nothing in it is trusted: its files may be links or pipes, and its database may be anything.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

from cryptography.hazmat.primitives.asymmetric import ed25519

from . import cbor, statements as st
from .cbor import Fields
from .chain import Chain
from .errors import Missing, ReaderError, Refused
from .keys import Recovery
from .tell import note

#: No value of the database that is read here is longer, in bytes.
_LONGEST_VALUE = 2 * 1024 * 1024
#: What is read of the database.
_TABLES = ("accounts", "cell_values", "chain", "heads", "runs")
#: How files of the directory are opened: no link is followed, and no pipe is waited for.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Cell:
    """One cell's directory, or its `store` alone."""

    def __init__(self, folder: str) -> None:
        given = Path(folder)
        for store in (given / "store", given, given / "cell" / "store"):
            if (store / "records.sqlite").is_file():
                break
        else:
            raise ReaderError(f"there is no records.sqlite under {folder}")
        self._objects = store / "objects"
        self._root_key = store.parent / "keys" / "root.key"
        self._cell: bytes | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="candor-reader-")
        try:
            self._db = self._open_copy(store)
        except BaseException:
            self._scratch.cleanup()
            raise

    def _open_copy(self, store: Path) -> sqlite3.Connection:
        """A copy of the database: SQLite writes beside a database even when it only reads."""
        copy = Path(self._scratch.name) / "records.sqlite"
        for ending in ("", "-wal"):
            source = store / f"records.sqlite{ending}"
            if source.is_file():
                shutil.copyfile(source, f"{copy}{ending}")
        db = sqlite3.connect(copy, isolation_level=None)
        try:
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA synchronous = OFF")
            db.execute("PRAGMA query_only = ON")
            # A view could compute without end.
            for name, kind in db.execute("SELECT name, type FROM sqlite_master"):
                if name in _TABLES and kind != "table":
                    raise Refused("the cell's database has something else in the place of a table")
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        self._db.close()
        self._scratch.cleanup()

    def _rows(self, query: str, parameters: tuple[Any, ...], *types: type) -> Iterator[tuple[Any, ...]]:
        """Rows whose columns have these types."""
        try:
            for row in self._db.execute(query, parameters):
                if not all(isinstance(value, kind) for value, kind in zip(row, types)):
                    raise Refused("the cell's database has a value of a wrong type")
                yield row
        except sqlite3.Error as error:
            raise Refused(f"the cell's database cannot be read: {error}") from None

    def _row(self, query: str, parameters: tuple[Any, ...], *types: type) -> tuple[Any, ...] | None:
        """The first row, if there is one."""
        return next(self._rows(f"{query} LIMIT 1", parameters, *types), None)

    # -- the account -------------------------------------------------------------------------

    def open_account(self, recovery: Recovery) -> Chain:
        """Find the account of a phrase and fold its chain."""
        found = self._row(
            "SELECT account, tip_sequence, tip_link FROM accounts WHERE root_key_hash = ?",
            (recovery.root.fingerprint(),),
            bytes,
            int,
            bytes,
        )
        if found is None:
            raise ReaderError("this cell has no account of this recovery phrase")
        account, tip_sequence, tip_link = found
        if len(account) != 16:
            raise Refused("the cell's database names an account by something else than 16 bytes")
        chain = Chain(recovery, account, self._acknowledgement_keys())
        chain.fold(self._records(account))
        if self._cell is not None and self._cell != chain.cell:
            raise Refused("the account's chain is of another cell than this one")
        if (chain.length - 1, chain.tip) != (tip_sequence, tip_link):
            raise Refused("the chain does not end where the cell's database says that it does")
        return chain

    def _records(self, account: bytes) -> Iterator[st.Record]:
        rows = self._rows(
            "SELECT sequence, kind, commitment, record, acknowledgement FROM chain WHERE account = ? ORDER BY sequence",
            (account,),
            int,
            int,
            bytes,
            bytes,
            bytes,
        )
        for sequence, kind, commitment, raw, ack in rows:
            record = st.Record.decode(raw)
            if (record.sequence, record.kind, record.commitment) != (sequence, kind, commitment):
                raise Refused("a row of the chain holds the record of another place")
            # The acknowledgement has a column of its own; one inside of the record counts for nothing.
            yield replace(record, acknowledgement=st.Acknowledgement.decode(ack))

    def _acknowledgement_keys(self) -> dict[int, bytes] | None:
        """Keys of all generations, checked with the cell's root key where that is here."""
        root = self._root_public()
        if root is None:
            note("the cell's root key is not here: acknowledgements are not checked")
            return None
        found = self._row("SELECT value FROM cell_values WHERE name = 'cell-keys'", (), bytes)
        if found is None:
            raise Refused("the cell's database does not have the cell's keys")
        self._cell = st.cell_id(root)
        generations = st.cell_description(found[0])
        for generation in generations:
            if generation.cell != self._cell or not generation.signed_by(root):
                raise Refused("the cell's keys are not signed by its root key")
        return {generation.serial: generation.acknowledgement for generation in generations}

    def _root_public(self) -> bytes | None:
        """The public half of `keys/root.key` (cell.md, "Keys"); None if it is not there, or is not for us to read."""
        try:
            fd = os.open(self._root_key, _READ)
        except OSError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Refused("keys/root.key is no file")
            raw = os.read(fd, 513)
        finally:
            os.close(fd)
        f = Fields(cbor.decode(raw, 512), "keys/root.key")
        f.version()
        f.uint(1, 1, 1)
        seed = f.bytes(2, 32)
        f.done()
        return ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    # -- vaults ------------------------------------------------------------------------------

    def head(self, account: bytes, vault: bytes) -> st.Head | None:
        """The newest head of a vault, of which nothing was checked but its form."""
        found = self._row("SELECT head FROM heads WHERE account = ? AND vault = ?", (account, vault), bytes)
        return st.Head.decode(found[0]) if found else None

    def run_heads(self, account: bytes, vault: bytes) -> Iterator[st.Head]:
        """All heads of a write-only device's vault, the oldest first."""
        query = "SELECT head FROM runs WHERE account = ? AND vault = ? ORDER BY counter"
        for (raw,) in self._rows(query, (account, vault), bytes):
            yield st.Head.decode(raw)

    def open_object(self, account: bytes, vault: bytes, name: bytes) -> int:
        """A file descriptor of an object's file."""
        path = self._objects / account.hex() / vault.hex() / name.hex()[:2] / name.hex()
        try:
            fd = os.open(path, _READ)
        except FileNotFoundError:
            raise Missing(f"object {name.hex()} is not in the cell's directory") from None
        except OSError as error:
            raise Missing(f"object {name.hex()} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise Missing(f"object {name.hex()} is no file")
        return fd
