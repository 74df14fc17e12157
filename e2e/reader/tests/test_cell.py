"""Whole cell directories that are made up: what is restored, what is refused, and how it is told."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from candor_reader import keys, statements as st
from candor_reader.__main__ import main

from .made import (
    ACCOUNT,
    ACCOUNT_KEY,
    D1,
    D2,
    KEY_1,
    KEY_2,
    OTHER,
    PHRASE,
    VAULT,
    Builder,
    MadeCell,
    MadeTree,
    consent,
    device,
    epoch,
    genesis,
    object_path,
    opened_epoch,
    revoked,
    signed_head,
    table,
)

CONTENT = b"C" * 32


def vault_tree() -> MadeTree:
    """A tree of the vault that the full devices share."""
    return MadeTree(keys.chunk_id_key(KEY_1, ACCOUNT, VAULT))


class Cells(unittest.TestCase):
    def setUp(self) -> None:
        # Hundreds of small directories: on a disk most of the time would be spent on taking them away.
        if os.path.isdir("/dev/shm"):
            self.enterContext(mock.patch.object(tempfile, "tempdir", "/dev/shm"))
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.outside = Path(scratch.name)
        self.folder = self.outside / "cell"
        self.out = self.outside / "out"
        self.phrase = self.outside / "phrase"
        self.phrase.write_text(PHRASE + "\n")
        self.printed = self.told = ""

    def read(self, *words: str) -> int:
        """Run the program; its exit code."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(["--cell", str(self.folder), "--phrase-file", str(self.phrase), *words])
        self.printed, self.told = output.getvalue(), errors.getvalue()
        self.assertNotIn("a fault of this program", self.told)
        return code

    def restores(self, *words: str) -> None:
        self.assertEqual(self.read("--to", str(self.out), *words), 0, self.told)

    def refused(self, why: str) -> None:
        """Nothing is restored, and the reason is told."""
        self.assertEqual(self.read("--to", str(self.out)), 1)
        self.assertIn(why, self.told)
        self.assertFalse(self.out.exists())

    def cell(self, **more: Any) -> MadeCell:
        """A cell with one snapshot of one file."""
        made = vault_tree()
        return MadeCell().backup(made, made.directory(b"d", made.file(b"f", b"content")), **more)


class Shared(Cells):
    """Vaults that full devices share."""

    def test_a_whole_cell(self) -> None:
        cell = self.cell()
        made = vault_tree()
        cell.backup(made, made.file(b"f", b"more content"))
        cell.write(self.folder)
        self.assertEqual(self.read("--list"), 0)
        lines = self.printed.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["01" * 16, "02" * 16])
        # A name is a stranger's word: nothing in it is obeyed by a terminal.
        self.assertIn("by desk\\x1b[2J", lines[0])
        self.restores("--snapshot", "0101")
        self.assertEqual((self.out / "d" / "f").read_bytes(), b"content")
        shutil.rmtree(self.out)
        self.restores()
        self.assertEqual((self.out / "f").read_bytes(), b"more content")

    def test_the_store_alone(self) -> None:
        """Without the cell's root key acknowledgements cannot be checked; the owner's signatures do not need it."""
        self.cell().write(self.folder)
        shutil.rmtree(self.folder / "keys")
        self.restores()
        self.assertIn("acknowledgements are not checked", self.told)

    def test_a_head_and_its_manifest_are_of_one_time(self) -> None:
        for change in (
            {"manifest": {"fields": {3: 2, 4: bytes(32)}}},
            {"manifest": {"fields": {5: 2}}},
            {"manifest": {"fields": {5: 0}}},
        ):
            with self.subTest(**change):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.cell(**change).write(self.folder)
                self.refused("a head and its manifest do not belong together")

    def test_a_manifest_is_sealed_under_the_epoch_of_its_head(self) -> None:
        builder = MadeCell.account().add(3, opened_epoch(2, KEY_2, [KEY_1], D1, D2), D1)
        cell = MadeCell(builder)
        manifest = cell.manifest(VAULT, KEY_1, 1, 1, [], [], fields={5: 2})
        cell.heads[VAULT] = signed_head(1, D1, 2, VAULT, fields={5: manifest})
        cell.write(self.folder)
        self.refused("a head and its manifest do not belong together")

    def test_a_table_that_lies_is_refused(self) -> None:
        made = vault_tree()
        entries = [made.file(b"f", b"content")]
        # Every chunk with its length, and at another place than it has.
        MadeCell().backup(made, *entries, shown=lambda chunks: table(chunks[::-1])).write(self.folder)
        self.refused("another table")

    def test_a_chunk_that_nothing_lists_ends_the_restore(self) -> None:
        made = vault_tree()
        entries = [made.file(b"f", b"content"), made.file(b"g", b"other")]
        del made.chunks[entries[0][8][:32]]
        MadeCell().backup(made, *entries).write(self.folder)
        self.refused("is in no pack that is listed")

    def test_a_pack_that_is_missing_is_read_from_elsewhere(self) -> None:
        made = vault_tree()
        entries = [made.file(b"f", b"content")]
        cell = MadeCell().backup(made, *entries)
        again = vault_tree()
        again.chunks.update(made.chunks)
        again.add(b"something else")
        cell.backup(again, *entries)
        cell.write(self.folder)
        first = next(iter(cell.objects))
        object_path(self.folder, *first).unlink()
        self.restores()
        self.assertEqual((self.out / "f").read_bytes(), b"content")

    def test_one_snapshot_that_is_refused_keeps_no_other_back(self) -> None:
        good, bad = vault_tree(), vault_tree()
        wrong = bad.entry(b"f", 0, refs=bad.add(b"content"), size=8)
        cell = MadeCell().backup(good, good.file(b"f", b"content"), name="good").backup(bad, wrong, name="bad")
        cell.write(self.folder)
        self.assertEqual(self.read("--to", str(self.out)), 1)
        self.assertEqual((self.out / "good" / "f").read_bytes(), b"content")
        self.assertEqual(os.listdir(self.out), ["good"])
        self.assertIn("1 of 2 snapshots", self.told)

    def test_a_head_that_is_missing(self) -> None:
        """A revocation pins a head, so a vault without one is an older state."""
        cell = self.cell()
        pinned = st.Head.decode(cell.heads[VAULT])
        cell.builder.add(9, revoked(D2, vault=pinned), D1)
        cell.write(self.folder)
        self.restores()
        shutil.rmtree(self.out)
        shutil.rmtree(self.folder)
        del cell.heads[VAULT]
        cell.write(self.folder)
        self.refused("the cell shows no head, and a revocation names one")


class Epochs(Cells):
    """Keys that a hostile device wrapped wrongly."""

    def account(self, *epochs: dict[int, Any]) -> Builder:
        builder = Builder().add(1, genesis()).add(2, device(D1))
        builder.add(3, opened_epoch(1, ACCOUNT_KEY, [], D1, vault=None), D1)
        for body in epochs:
            builder.add(3, body, D1)
        return builder.add(4, consent(D1), D1)

    def backed_up(self, builder: Builder, sealed_under: int) -> None:
        made = vault_tree()
        cell = MadeCell(builder).backup(made, made.file(b"f", b"content"))
        listed = cell._indexes[VAULT]
        key = {1: KEY_1, 3: b"M" * 32}[sealed_under]
        manifest = cell.manifest(VAULT, key, sealed_under, 1, cell._snapshots[VAULT], listed)
        cell.heads[VAULT] = signed_head(1, D1, sealed_under, VAULT, fields={5: manifest})
        cell.write(self.folder)

    def test_an_epoch_that_does_not_open_locks_nobody_out(self) -> None:
        """What was sealed before it, and what is sealed after a later one that opens, can be read."""
        first = opened_epoch(1, KEY_1, [], D1)
        self.backed_up(self.account(first, epoch(2, D1)), sealed_under=1)
        self.restores()
        shutil.rmtree(self.out)
        shutil.rmtree(self.folder)
        third = opened_epoch(3, b"M" * 32, [KEY_1, KEY_2], D1)
        self.backed_up(self.account(first, epoch(2, D1), third), sealed_under=3)
        self.restores()

    def test_wrong_keys_of_earlier_epochs_replace_none(self) -> None:
        first = opened_epoch(1, KEY_1, [], D1)
        builder = self.account(first, opened_epoch(2, KEY_2, [b"X" * 32], D1))
        self.assertEqual([state.key for state in builder.fold().scopes[VAULT]], [KEY_1, KEY_2])
        self.backed_up(builder, sealed_under=1)
        self.restores()

    def test_a_later_epoch_brings_a_key_that_did_not_open(self) -> None:
        lost = opened_epoch(1, KEY_1, [], D1)
        lost[4][0] = {1: bytes(32), 2: b"short"}
        builder = self.account(lost, opened_epoch(2, KEY_2, [KEY_1], D1))
        self.assertEqual([state.key for state in builder.fold().scopes[VAULT]], [KEY_1, KEY_2])
        wrong = self.account(lost, opened_epoch(2, KEY_2, [b"X" * 32], D1))
        self.assertEqual([state.key for state in wrong.fold().scopes[VAULT]], [None, KEY_2])

    def test_a_key_that_does_not_fit_its_record_is_none(self) -> None:
        other = opened_epoch(1, KEY_1, [], D1)
        other[3] = opened_epoch(1, KEY_2, [], D1)[3]
        self.assertEqual([state.key for state in self.account(other).fold().scopes[VAULT]], [None])


class Runs(Cells):
    """The vault of a write-only device, which somebody may have stolen."""

    def run_of(self, cell: MadeCell, content: bytes, **more: Any) -> MadeTree:
        made = MadeTree(CONTENT)
        cell.run(made, made.file(b"f", content), content=more.pop("key", CONTENT), **more)
        return made

    def contents(self) -> dict[str, bytes]:
        """Content of the one file of every snapshot, by the beginning of its id."""
        self.assertEqual(self.read("--list"), 0, self.told)
        told = self.told
        found = {}
        for line in self.printed.splitlines():
            name = line[:4]
            shutil.rmtree(self.out, ignore_errors=True)
            self.restores("--snapshot", line[:32])
            found[name] = (self.out / "f").read_bytes()
        self.told = told
        return found

    def test_all_runs_are_read(self) -> None:
        cell = MadeCell()
        self.run_of(cell, b"one")
        self.run_of(cell, b"two")
        cell.write(self.folder)
        self.assertEqual(self.contents(), {"0101": b"one", "0202": b"two"})

    def test_strangers_runs_hide_nothing(self) -> None:
        cell = MadeCell()
        first = list(self.run_of(cell, b"one").chunks.items())
        self.run_of(cell, b"another key of content ids", key=b"X" * 32)
        self.run_of(cell, b"another counter", manifest={"fields": {3: 9}})
        self.run_of(cell, b"another number", manifest={"fields": {5: 9}})
        self.run_of(cell, b"a snapshot once more", identity=1)
        self.run_of(cell, b"nothing", manifest={"fields": {6: []}})
        self.run_of(cell, b"a key for the first run", earlier=[(1, b"Y" * 32)])
        # It lists the first run's chunks with other lengths, in a pack of its own.
        self.run_of(cell, b"lengths", shown=lambda _: table([(name, data + b"x") for name, data in first]))
        self.run_of(cell, b"last")
        cell.write(self.folder)
        self.assertEqual(self.read("--list"), 0, self.told)
        self.assertEqual([line[:2] for line in self.printed.splitlines()], ["01", "07", "08", "09"])
        self.assertEqual(self.told.count("is left out"), 5)
        for identity, content in (("0101", b"one"), ("0707", b"a key for the first run"), ("0909", b"last")):
            shutil.rmtree(self.out, ignore_errors=True)
            self.restores("--snapshot", identity)
            self.assertEqual((self.out / "f").read_bytes(), content)

    def test_a_gap_refuses_the_vault(self) -> None:
        cell = MadeCell()
        for content in (b"one", b"two", b"three"):
            self.run_of(cell, content)
        newest = cell.runs[OTHER].pop()
        cell.write(self.folder)
        self.assertEqual(self.read("--list"), 1)
        self.assertIn("not the last of its runs", self.told)
        shutil.rmtree(self.folder)
        cell.runs[OTHER] = [cell.runs[OTHER][0], newest]
        cell.write(self.folder)
        self.assertEqual(self.read("--list"), 1)
        self.assertIn("do not follow from one another", self.told)


class Hostile(Cells):
    """A directory in which somebody changed one thing: it is told in one sentence, or what is right is restored."""

    def harmless(self, what: str) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        with self.subTest(what):
            code = self.read("--to", str(self.out), "--special")
            self.assertIn(code, (0, 1))
            if code:
                self.assertRegex(self.told, r"(^|\n)candor_reader: error: [^\n]+\n\Z")
            elif (self.out / "d" / "f").exists():
                self.assertEqual((self.out / "d" / "f").read_bytes(), b"content")
            self.assertEqual(sorted(set(os.listdir(self.outside)) - {"out"}), ["cell", "phrase", "whole"])

    def database(self) -> sqlite3.Connection:
        """The directory's database, to be changed without waiting for the disk."""
        db = sqlite3.connect(self.folder / "store" / "records.sqlite")
        db.execute("PRAGMA synchronous = OFF")
        return db

    def again(self) -> None:
        """The directory as it was."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.outside / "whole", self.folder)

    def setUp(self) -> None:
        super().setUp()
        cell = self.cell()
        made = MadeTree(CONTENT)
        cell.run(made, made.directory(b"d", made.file(b"f", b"content")), content=CONTENT)
        cell.write(self.outside / "whole")
        self.again()

    def test_objects(self) -> None:
        for path in sorted((self.outside / "whole").glob("store/objects/*/*/*/*")):
            place = self.folder / path.relative_to(self.outside / "whole")
            size = path.stat().st_size
            for offset in (0, 4, 6, 9, 10, 42, 74, size // 2, size - 1):
                self.again()
                with open(place, "r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)[0]
                    file.seek(offset)
                    file.write(bytes([byte ^ 1]))
                self.harmless(f"{path.name} {offset}")
            for change in ("gone", "cut", "empty", "long", "pipe", "link", "folder"):
                self.again()
                if change == "cut":
                    os.truncate(place, size - 1)
                elif change == "empty":
                    os.truncate(place, 0)
                elif change == "long":
                    os.truncate(place, 2 * size)
                else:
                    place.unlink()
                if change == "pipe":
                    os.mkfifo(place)
                elif change == "link":
                    place.symlink_to(path)
                elif change == "folder":
                    place.mkdir()
                self.harmless(f"{path.name} {change}")

    def test_values_of_the_database(self) -> None:
        columns = {
            "accounts": ("account", "root_key_hash", "tip_sequence", "tip_link"),
            "chain": ("sequence", "kind", "commitment", "record", "acknowledgement"),
            "cell_values": ("value",),
            "heads": ("vault", "head"),
            "runs": ("counter", "head"),
        }
        bomb = b"\x9b" + (500_000).to_bytes(8, "big") + b"\xa0" * 500_000
        values = (b"", b"\0", b"\xff" * 40, b"\x9b" + bytes(8), bomb, bytes(3_000_000), -1, 2**62, "text", 0.5, None)
        for name, names in columns.items():
            for column in names:
                for value in values:
                    self.again()
                    db = self.database()
                    with contextlib.suppress(sqlite3.IntegrityError):
                        db.execute(f"UPDATE {name} SET {column} = ?", (value,))
                        db.commit()
                    db.close()
                    self.harmless(f"{name}.{column} {str(value)[:20]}")

    def test_bits_of_the_database(self) -> None:
        for query in ("SELECT rowid, record FROM chain", "SELECT rowid, head FROM heads"):
            name, column = query.split()[-1], query.split()[2]
            db = sqlite3.connect(self.outside / "whole" / "store" / "records.sqlite")
            rows = db.execute(query).fetchall()
            db.close()
            for row, raw in rows:
                for bit in range(0, 8 * len(raw), 8 * len(raw) // 11):
                    self.again()
                    changed = bytearray(raw)
                    changed[bit // 8] ^= 1 << bit % 8
                    db = self.database()
                    db.execute(f"UPDATE {name} SET {column} = ? WHERE rowid = ?", (bytes(changed), row))
                    db.commit()
                    db.close()
                    self.harmless(f"{name} {row} {bit}")

    def test_rows_that_are_gone(self) -> None:
        for name in ("accounts", "chain", "cell_values", "heads", "runs"):
            for word in (f"DELETE FROM {name}", f"DROP TABLE {name}"):
                self.again()
                db = self.database()
                db.execute(word)
                db.commit()
                db.close()
                self.harmless(word)

    def test_a_view_that_never_ends(self) -> None:
        endless = "WITH RECURSIVE n(x) AS (SELECT x'00' UNION ALL SELECT x FROM n)"
        db = self.database()
        db.execute("DROP TABLE accounts")
        db.execute(f"CREATE VIEW accounts AS {endless} SELECT x AS account, x AS root_key_hash FROM n")
        db.commit()
        db.close()
        self.refused("in the place of a table")

    def test_pages_of_the_database(self) -> None:
        place = self.folder / "store" / "records.sqlite"
        size = place.stat().st_size
        for offset in range(0, size, size // 40):
            self.again()
            with open(place, "r+b") as file:
                file.seek(offset)
                file.write(b"\xff" * 64)
            self.harmless(f"database {offset}")
        for wal in (b"", b"\x37\x7f\x06\x82" + bytes(28), b"\xff" * 5000):
            self.again()
            Path(f"{place}-wal").write_bytes(wal)
            self.harmless(f"wal {len(wal)}")

    def test_other_files(self) -> None:
        key = self.folder / "keys" / "root.key"
        for data in (b"", b"\xff" * 10, bytes(100_000)):
            self.again()
            key.write_bytes(data)
            self.refused("")
        for name in ("keys/root.key", "store/records.sqlite", "store/records.sqlite-wal", "store/objects"):
            place = self.folder / name
            for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)):
                self.again()
                if place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)
                make(place)
                self.harmless(f"{name} {make}")


class Command(Cells):
    """Exit codes, and errors of one line."""

    def reader(self, *words: str) -> subprocess.CompletedProcess[str]:
        top = Path(__file__).resolve().parent.parent
        return subprocess.run(
            [sys.executable, "-m", "candor_reader", *words], cwd=top, capture_output=True, text=True, check=False
        )

    def test_a_program_of_its_own(self) -> None:
        self.cell().write(self.folder)
        where = ["--cell", str(self.folder), "--phrase-file", str(self.phrase)]
        done = self.reader(*where, "--to", str(self.out))
        self.assertEqual((done.returncode, done.stderr.count("\n")), (0, 1))
        self.assertIn("has a consent and no head", done.stderr)
        self.assertEqual((self.out / "d" / "f").read_bytes(), b"content")
        again = self.reader(*where, "--to", str(self.out))
        self.assertEqual((again.returncode, again.stdout, again.stderr.count("\n")), (1, "", 1))
        self.assertIn("is not empty", again.stderr)

    def test_another_phrase(self) -> None:
        self.cell().write(self.folder)
        self.phrase.write_text("abandon " * 23 + "art")
        self.refused("this cell has no account of this recovery phrase")


if __name__ == "__main__":
    unittest.main()
