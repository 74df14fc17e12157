"""Restores of trees that are made up, with a dictionary in the place of a vault."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from candor_reader import cbor, tree
from candor_reader.errors import Missing, ReaderError, Refused
from candor_reader.restore import Restore, open_target

from .made import TIME, MadeTree


class FakeVault(MadeTree):
    """Chunks in the place of a vault; each is in a pack of its own."""

    def __init__(self) -> None:
        super().__init__()
        #: Chunks whose pack is not there.
        self.missing: set[bytes] = set()

    def places(self, name: bytes) -> list[tuple[int, int, int, int]]:
        if name not in self.chunks:
            raise Refused("no such chunk")
        return [(1, 0, 0, len(self.chunks[name]))]

    def chunk(self, name: bytes, length: int | None = None) -> bytes:
        self.places(name)
        if length not in (None, len(self.chunks[name])):
            raise Refused("another length")
        if name in self.missing:
            raise Missing("no such object")
        return self.chunks[name]


class Restores(unittest.TestCase):
    def setUp(self) -> None:
        self.vault = FakeVault()
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.outside = Path(scratch.name)
        self.out = self.outside / "out"
        self.told = ""

    def restore(self, *entries: dict[int, Any], special: bool = False) -> Restore:
        job = Restore(self.vault, self.vault.root(*entries), special)  # type: ignore[arg-type]
        self.addCleanup(job.close)
        job.verify()
        target = open_target(str(self.out))
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors):
                job.write(target)
        finally:
            os.close(target)
            self.told = errors.getvalue()
        return job

    def test_everything(self) -> None:
        v = self.vault
        sparse = v.entry(b"sparse", tree.FILE, refs=v.add(b"0123456789"), size=100_000, map=[5, 4, 20_000, 6])
        job = self.restore(
            v.directory(b"closed", v.file(b"x", b"x"), mode=0),
            v.entry(b"fifo", tree.FIFO, mode=0o600),
            v.entry(b"hole", tree.FILE, refs=b"", size=1 << 40, map=[]),
            v.entry(b"link", tree.SYMLINK, target=b"../\xff", mode=0o777),
            v.file(b"one", b"same", group=bytes(16)),
            sparse,
            v.file(b"two", b"same", group=bytes(16)),
            v.file(b"zwo", b"same", group=bytes(16), mode=0o600),
            v.file(b"\xff\n", b"odd", time=-1),
        )
        self.assertEqual((job.lost, job.noted), (0, 0))
        closed = os.stat(self.out / "closed")
        self.assertEqual((stat.S_IMODE(closed.st_mode), closed.st_mtime_ns), (0, TIME))
        os.chmod(self.out / "closed", 0o755)
        self.assertEqual((self.out / "closed/x").read_bytes(), b"x")
        self.assertTrue(stat.S_ISFIFO(os.lstat(self.out / "fifo").st_mode))
        self.assertEqual(os.readlink(os.fsencode(self.out / "link")), b"../\xff")
        self.assertEqual(os.lstat(self.out / "link").st_mtime_ns, TIME)
        self.assertTrue(os.path.samefile(self.out / "one", self.out / "two"))
        self.assertFalse(os.path.samefile(self.out / "one", self.out / "zwo"))
        data = (self.out / "sparse").read_bytes()
        self.assertEqual(data, bytes(5) + b"0123" + bytes(20_000) + b"456789" + bytes(100_000 - 20_015))
        hole = os.stat(self.out / "hole")
        self.assertEqual((hole.st_size, hole.st_blocks), (1 << 40, 0))
        odd = os.fsencode(self.out) + b"/\xff\n"
        self.assertEqual(os.stat(odd).st_mtime_ns, -1)
        self.assertFalse(any(name.endswith(".part") for name in os.listdir(self.out)))

    def test_names_that_lead_elsewhere(self) -> None:
        v = self.vault
        names = [b"", b".", b"..", b"../escaped", b"/tmp/escaped", b"a\0b", b"x" * 256]
        entries = [v.file(name, b"evil") for name in names] + [v.file(b"good", b"good")]
        inner = v.directory(b"..", v.file(b"escaped", b"evil"))
        job = self.restore(*sorted(entries, key=lambda entry: entry[0]))
        self.assertEqual(job.lost, len(names))
        self.assertEqual(os.listdir(self.out), ["good"])
        self.assertEqual(os.listdir(self.outside), ["out"])
        (self.out / "good").unlink()
        self.assertEqual(self.restore(inner).lost, 1)
        self.assertEqual(os.listdir(self.out), [])

    def test_a_name_twice_is_refused_before_anything_is_written(self) -> None:
        """A link and then a directory of its name would be a way out."""
        v = self.vault
        with self.assertRaises(Refused):
            self.restore(
                v.file(b"a", b"a"),
                v.entry(b"b", tree.SYMLINK, target=b".."),
                v.directory(b"b", v.file(b"escaped", b"evil")),
            )
        self.assertFalse(self.out.exists())

    def test_links_are_not_followed(self) -> None:
        """Somebody puts a link in the place of a directory while the restore runs."""
        v = self.vault
        victim = self.outside / "victim"
        victim.mkdir()
        root = v.root(v.directory(b"d", v.file(b"f", b"f")))
        target = open_target(str(self.out))
        job = Restore(v, root, False)  # type: ignore[arg-type]
        self.addCleanup(job.close)
        job.verify()
        real = os.mkdir

        def mkdir(name: bytes, mode: int, *, dir_fd: int) -> None:
            real(name, mode, dir_fd=dir_fd)
            os.rmdir(name, dir_fd=dir_fd)
            os.symlink(victim, name, dir_fd=dir_fd)

        os.mkdir = mkdir  # type: ignore[assignment]
        try:
            with self.assertRaises(OSError):
                job.write(target)
        finally:
            os.mkdir = real
            os.close(target)
        self.assertEqual(os.listdir(victim), [])

    def test_a_pack_that_is_missing_costs_its_files(self) -> None:
        v = self.vault
        entries = [v.file(name, name) for name in (b"a", b"b", b"c")]
        v.missing.add(entries[1][8][:32])
        self.assertEqual(self.restore(*entries).lost, 1)
        self.assertEqual(sorted(os.listdir(self.out)), ["a", "c"])
        self.assertIn("not restored: b", self.told)

    def test_a_tree_that_lies_about_lengths_is_refused(self) -> None:
        v = self.vault
        lists = v.add(cbor.encode({0: 1, 1: v.add(b"12345")}))
        good = v.entry(b"f", tree.FILE, refs=lists, levels=1, size=5)
        self.restore(good)
        self.assertEqual((self.out / "f").read_bytes(), b"12345")
        (self.out / "f").unlink()
        with self.assertRaises(Refused):
            self.restore(good | {10: 6})
        self.assertEqual(os.listdir(self.out), [])

    def test_special_things_only_on_request(self) -> None:
        v = self.vault
        entries = (
            v.directory(b"sgid", mode=0o2755),
            v.entry(b"sock", tree.SOCKET),
            v.file(b"suid", b"s", mode=0o4755),
        )
        job = self.restore(*entries)
        self.assertEqual((job.lost, job.noted), (0, 3))
        self.assertEqual(stat.S_IMODE(os.stat(self.out / "suid").st_mode), 0o755)
        (self.out / "suid").unlink()
        (self.out / "sgid").rmdir()
        job = self.restore(*entries, special=True)
        self.assertEqual(job.noted, 1)
        self.assertEqual(stat.S_IMODE(os.stat(self.out / "suid").st_mode), 0o4755)

    def test_numbers_that_no_system_has(self) -> None:
        v = self.vault
        job = self.restore(
            v.entry(b"device", tree.CHARACTER, device=[2**32 - 1, 2**32 - 1]),
            v.file(b"early", b"e", time=-(2**63)),
            v.file(b"huge", b"", size=2**63 - 1, map=[]),
            v.file(b"late", b"l", time=2**63 - 1),
            special=True,
        )
        self.assertLessEqual(job.lost, 2)
        self.assertEqual((self.out / "early").read_bytes(), b"e")
        self.assertEqual((self.out / "late").read_bytes(), b"l")

    def test_attributes_of_links_are_not_those_of_what_they_lead_to(self) -> None:
        victim = self.outside / "victim"
        victim.write_text("mine")
        before = os.stat(victim)
        link = self.vault.entry(b"link", tree.SYMLINK, target=os.fsencode(victim)) | {3: 1234, 4: 1234}
        self.restore(link)
        after = os.stat(victim)
        same = ("st_uid", "st_gid", "st_mode", "st_mtime_ns")
        self.assertEqual([getattr(before, name) for name in same], [getattr(after, name) for name in same])
        self.assertEqual(os.lstat(self.out / "link").st_mtime_ns, TIME)

    def test_another_file_in_the_place_of_a_new_one_gets_no_attributes(self) -> None:
        """Somebody exchanges a pipe for a further name of a pipe of theirs, before it gets its owner and mode."""
        theirs = self.outside / "theirs"
        os.mkfifo(theirs, 0o600)
        real = os.mknod

        def mknod(name: bytes, mode: int, number: int, *, dir_fd: int) -> None:
            real(name, mode, number, dir_fd=dir_fd)
            os.unlink(name, dir_fd=dir_fd)
            os.link(theirs, name, dst_dir_fd=dir_fd)

        with mock.patch.object(os, "mknod", mknod):
            job = self.restore(self.vault.entry(b"pipe", tree.FIFO, mode=0o666))
        self.assertEqual(job.lost, 1)
        self.assertEqual(stat.S_IMODE(os.stat(theirs).st_mode), 0o600)

    def test_a_target_that_hands_down_an_access_list(self) -> None:
        entries = [(0x01, 7, -1), (0x02, 7, 4242), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        self.out.mkdir()
        try:
            os.setxattr(self.out, "system.posix_acl_default", acl)
        except OSError:
            self.skipTest("this file system has no access lists")
        v = self.vault
        own = v.file(b"g", b"g", xattrs=[[b"system.posix_acl_access", acl]], mode=0o775)
        self.restore(v.directory(b"d", v.file(b"f", b"f", mode=0o640), own, v.entry(b"p", tree.FIFO, mode=0o600)))
        for name, mode in (("d", 0o755), ("d/f", 0o640), ("d/p", 0o600)):
            self.assertEqual(os.listxattr(self.out / name), [], name)
            self.assertEqual(stat.S_IMODE(os.stat(self.out / name).st_mode), mode, name)
        self.assertEqual(os.getxattr(self.out / "d/g", "system.posix_acl_access"), acl)

    def test_deep_directories(self) -> None:
        v = self.vault
        entry = v.file(b"end", b"end")
        for _ in range(300):
            entry = v.directory(b"d", entry)
        self.assertEqual(self.restore(entry).lost, 0)
        self.assertEqual((self.out / "/".join(["d"] * 300) / "end").read_bytes(), b"end")

    def test_the_target_is_new_or_empty(self) -> None:
        self.out.mkdir()
        (self.out / "mine").write_text("mine")
        with self.assertRaises(ReaderError):
            self.restore()
        with self.assertRaises(ReaderError):
            open_target(str(self.out / "mine"))


class Command(unittest.TestCase):
    """Exit codes and one-line errors."""

    def run_reader(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        top = Path(__file__).resolve().parent.parent
        return subprocess.run(
            [sys.executable, "-m", "candor_reader", *arguments], cwd=top, capture_output=True, text=True, check=False
        )

    def one_line(self, *arguments: str) -> str:
        done = self.run_reader(*arguments)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr

    def test_usage(self) -> None:
        self.assertEqual(self.run_reader().returncode, 2)
        self.assertEqual(self.run_reader("--cell", "x", "--phrase-file", "y").returncode, 2)
        self.assertEqual(
            self.run_reader("--cell", "x", "--phrase-file", "y", "--list", "--snapshot", "../x").returncode, 2
        )

    def test_bad_input(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            phrase = Path(folder) / "phrase"
            self.assertIn("No such file", self.one_line("--cell", folder, "--phrase-file", str(phrase), "--list"))
            phrase.write_text("one two three")
            self.assertIn("24 words", self.one_line("--cell", folder, "--phrase-file", str(phrase), "--list"))
            phrase.write_text("abandon " * 23 + "art")
            self.assertIn("records.sqlite", self.one_line("--cell", folder, "--phrase-file", str(phrase), "--list"))
            Path(folder, "records.sqlite").write_text("this is no database at all" * 100)
            self.assertIn("not a database", self.one_line("--cell", folder, "--phrase-file", str(phrase), "--list"))


if __name__ == "__main__":
    unittest.main()
