"""From a chain to the snapshots of its vaults (vault.md, "Reading a snapshot", "The vault of a write-only device")."""

from __future__ import annotations

from dataclasses import replace

from . import keys, tree, vault as v
from .cell import Cell
from .chain import Chain
from .errors import ReaderError, Refused
from .statements import Head, RunKey
from .tell import note

#: Most keys of runs that are read from one vault.
MAX_RUN_KEYS = 100_000

#: A run's number, its key, and the key of its device's content ids.
RunKeys = tuple[int, bytes, bytes]


class OpenVault:
    """A vault whose head was verified, with its snapshots in the order in which they were added."""

    def __init__(self, cell: Cell, chain: Chain, vault_id: bytes) -> None:
        self.id = vault_id
        self.snapshots: list[v.Snapshot] = []
        self.reader: v.Vault | None = None
        self._indexes: list[tuple[bytes, int]] = []
        self._cell, self._chain = cell, chain
        try:
            if chain.write_only_owner(vault_id) is not None:
                self._read_runs()
            else:
                self._read_manifest()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close what is open; the vault cannot be read any more."""
        if self.reader:
            self.reader.close()

    def _make_reader(self, key_of: v.KeyOf, chunk_key: bytes) -> v.Vault:
        account = self._chain.account

        def open_file(name: bytes) -> int:
            return self._cell.open_object(account, self.id, name)

        return v.Vault(account, self.id, open_file, key_of, chunk_key)

    def _no_head(self) -> None:
        if not self._chain.check_no_head(self.id):
            note(f"vault {self.id.hex()} has a consent and no head: nothing was stored yet, or the cell hides it")

    # -- a vault that full devices share -----------------------------------------------------

    def _read_manifest(self) -> None:
        head = self._cell.head(self._chain.account, self.id)
        if head is None:
            self._no_head()
            return
        self._chain.check_head(head, self.id)
        self._chain.check_not_revoked(head)
        epochs = self._chain.scopes[self.id]
        if epochs[0].key is None:
            raise Refused("the key of the vault's first epoch does not open")
        self.reader = self._make_reader(
            lambda epoch: epochs[epoch - 1].key if 1 <= epoch <= len(epochs) else None,
            keys.chunk_id_key(epochs[0].key, self._chain.account, self.id),
        )
        manifest = self._manifest_of(self.reader, head)
        self.snapshots = manifest.snapshots
        self._indexes = manifest.indexes

    @staticmethod
    def _manifest_of(reader: v.Vault, head: Head) -> v.Manifest:
        """The manifest that a head names; what the two say of themselves has to be the same."""
        manifest, sealed_under = reader.read_manifest(head.manifest)
        if manifest.counter != head.counter or not head.epoch == manifest.epoch == sealed_under:
            raise Refused("a head and its manifest do not belong together")
        return manifest

    # -- a vault of a write-only device ------------------------------------------------------

    def _read_runs(self) -> None:
        newest = self._cell.head(self._chain.account, self.id)
        run_keys: dict[int, bytes] = {}
        runs = self._opened_runs(newest, run_keys)
        if newest is None:
            self._no_head()
            return
        self._chain.check_not_revoked(newest)
        if self.reader is None:
            return
        known: set[bytes] = set()
        for head in runs:
            self.reader.db.execute("SAVEPOINT run")
            try:
                snapshot = self._take_run(self.reader, head, known)
                self.snapshots.append(snapshot)
                known.add(snapshot.id)
            except ReaderError as error:
                self.reader.db.execute("ROLLBACK TO run")
                self._leave_out(head, error)
            self.reader.db.execute("RELEASE run")

    def _opened_runs(self, newest: Head | None, run_keys: dict[int, bytes]) -> list[Head]:
        """The runs whose keys open, the oldest first, and all of their keys.

        What an earlier run said of a number's key stays, and so does the first key of content ids; a run that names
        another one is left out with all that it says.
        """
        content_key: bytes | None = None
        before: bytes | None = None
        runs: list[Head] = []
        for counter, head in enumerate(self._cell.run_heads(self._chain.account, self.id), 1):
            self._chain.check_head(head, self.id)
            if head.counter != counter or head.previous != before:
                raise Refused("the heads of a write-only device's vault do not follow from one another")
            before = head.hash
            try:
                opened = [self._open_run(head, run) for run in head.runs]
                content_key = content_key or opened[0][2]
                if any(content != content_key for _, _, content in opened):
                    raise Refused("it names another key of content ids")
                if len(run_keys) + sum(number not in run_keys for number, _, _ in opened) > MAX_RUN_KEYS:
                    raise Refused("there are too many runs")
            except ReaderError as error:
                self._leave_out(head, error)
                continue
            for number, key, _ in opened:
                run_keys.setdefault(number, key)
            # There may be many: only what is still needed of each is kept.
            runs.append(replace(head, raw=b"", signature=b"", runs=[]))
        if before != (newest.hash if newest else None):
            raise Refused("the newest head of a write-only device's vault is not the last of its runs")
        if content_key is not None:
            self.reader = self._make_reader(run_keys.get, content_key)
        return runs

    def _open_run(self, head: Head, run: RunKey) -> RunKeys:
        """One of the keys that a run's head brings."""
        pair = self._chain.epoch_pair(self.id, run.epoch)
        key, content = keys.open_run(
            pair, head.account, head.vault, head.device, run.epoch, run.number, run.enc, run.sealed
        )
        return run.number, key, content

    def _take_run(self, reader: v.Vault, head: Head, known: set[bytes]) -> v.Snapshot:
        """Take in what a run lists, whole or not at all; `known` are the ids of the snapshots before."""
        manifest = self._manifest_of(reader, head)
        if len(manifest.snapshots) != 1 or manifest.snapshots[0].device != head.device:
            raise Refused("it lists something else than the one snapshot that it made")
        if manifest.snapshots[0].id in known:
            raise Refused("it lists a snapshot that an earlier run made")
        for name, length in manifest.indexes:
            reader.add_index(name, length)
        return manifest.snapshots[0]

    def _leave_out(self, head: Head, why: ReaderError) -> None:
        note(f"run {head.counter} of vault {self.id.hex()} is left out: {why}")

    # -- reading -----------------------------------------------------------------------------

    def load(self) -> v.Vault:
        """The vault's reader, knowing the places of all chunks."""
        if self.reader is None:
            raise Refused("the vault was never written")
        for name, length in self._indexes:
            self.reader.add_index(name, length)
        self._indexes = []
        return self.reader

    def root(self, snapshot: v.Snapshot) -> tree.Root:
        """The root record of a snapshot; its length is in no reference."""
        return tree.Root.decode(self.load().chunk(snapshot.root))
