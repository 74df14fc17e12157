"""The command: `python3 -m candor_reader --cell DIR --phrase-file FILE (--list | --to OUT)`."""

from __future__ import annotations

import argparse
import io
import os
import re
import sqlite3
import sys
from datetime import datetime, timedelta, timezone

from .account import OpenVault
from .cell import Cell
from .chain import Chain
from .errors import ReaderError
from .keys import Recovery
from .restore import Restore, check_target, open_target
from .tell import note, shown
from .tree import valid_name
from .vault import Snapshot
from .words import MAX_TEXT

Found = tuple[OpenVault, Snapshot]


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with code 2."""
    parser = argparse.ArgumentParser(
        prog="candor_reader",
        description="Restores Candor backups from a cell's directory and the 24 words of the recovery phrase.",
    )
    parser.add_argument("--cell", required=True, metavar="DIR", help="the cell's directory, or its store")
    parser.add_argument("--phrase-file", required=True, metavar="FILE", help="a text file with the 24 words")
    parser.add_argument("--set", metavar="NAME", help="only this backup set or synced folder")
    parser.add_argument("--snapshot", default="latest", metavar="ID", help="a snapshot's id or its beginning, or latest")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print the snapshots")
    what.add_argument("--to", metavar="OUT", help="restore into this folder, which is new or empty")
    parser.add_argument(
        "--special",
        action="store_true",
        help="also setuid and setgid bits, device nodes, security.capability and trusted.*",
    )
    parsed = parser.parse_args(words)
    if parsed.snapshot != "latest" and not re.fullmatch("[0-9a-f]{4,32}", parsed.snapshot):
        parser.error("--snapshot takes `latest` or 4 to 32 hexadecimal digits")
    return parsed


def read_phrase(path: str) -> str:
    """The text of the file with the words. It may be a pipe."""
    with open(path, "rb") as file:
        raw = file.read(MAX_TEXT + 1)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ReaderError(f"{path} is no text") from None


def when(milliseconds: int) -> str:
    """A time in UTC, if the calendar has it."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:
        return f"{milliseconds} ms"


def print_list(chain: Chain, found: list[Found]) -> None:
    """One line for each snapshot."""
    for vault, snapshot in found:
        device = chain.devices.get(snapshot.device)
        name = shown(device.name.encode()) if device else ""
        files, directories, size, *_ = snapshot.counts
        print(
            f"{snapshot.id.hex()}  {when(snapshot.time)}  {shown(snapshot.set.encode())}"
            f"  {files} files, {directories} directories, {size} bytes"
            f"  by {name or snapshot.device.hex()}"
            f"  vault {vault.id.hex()[:8]}{'  incomplete' if snapshot.incomplete else ''}"
        )


def choose(found: list[Found], wanted: str) -> list[Found]:
    """The snapshots to restore: the named one, or the newest of each set of each vault."""
    if wanted == "latest":
        newest = {(vault.id, snapshot.set): (vault, snapshot) for vault, snapshot in found}
        return list(newest.values())
    chosen = [pair for pair in found if pair[1].id.hex().startswith(wanted)]
    if len(chosen) > 1:
        raise ReaderError(f"{len(chosen)} snapshots have ids that begin with {wanted}")
    return chosen


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def folder_names(chosen: list[Found]) -> list[bytes]:
    """A folder for each of several snapshots, named after its set."""
    names: list[bytes] = []
    for vault, snapshot in chosen:
        name = snapshot.set.encode("utf-8")
        if not valid_name(name):
            name = vault.id.hex().encode("ascii")
        if name in names:
            name += b"-" + vault.id.hex().encode("ascii")
        names.append(name)
    return names


def restore(chosen: list[Found], out: str, special: bool) -> int:
    """Restore all that was chosen; how many snapshots could not be.

    Each is verified before the target is made. Of several, one that is refused does not keep the others from being
    restored.
    """
    several = len(chosen) > 1
    failed = 0
    jobs: list[tuple[Snapshot, bytes, Restore]] = []
    for (vault, snapshot), name in zip(chosen, folder_names(chosen)):
        try:
            job = Restore(vault.load(), vault.root(snapshot), special)
            job.verify()
            jobs.append((snapshot, name, job))
        except ReaderError as error:
            failed += refuse(snapshot, error, several)
    if not jobs:
        return failed
    target = open_target(out)
    try:
        for snapshot, name, job in jobs:
            try:
                write(job, target, name if several else None)
            except ReaderError as error:
                failed += refuse(snapshot, error, several)
                continue
            finally:
                job.close()
            failed += job.lost > 0
            if snapshot.incomplete:
                note(f"snapshot {snapshot.id.hex()} is incomplete: something could not be read when it was made")
            place = shown(os.fsencode(out), *([name] if several else []))
            lost = f", of which {job.lost} could not be restored" if job.lost else ""
            print(f"restored {snapshot.id.hex()} of {shown(snapshot.set.encode())} to {place}: {job.entries} entries{lost}")
    finally:
        os.close(target)
    return failed


def refuse(snapshot: Snapshot, error: ReaderError, several: bool) -> int:
    """One of several is told and counted; a single one is the program's error."""
    if not several:
        raise error
    note(f"snapshot {snapshot.id.hex()} of {snapshot.set} is not restored: {error}")
    return 1


def write(job: Restore, target: int, name: bytes | None) -> None:
    """Write a snapshot into the target, or into a folder of its own in there."""
    if name is None:
        job.write(target)
        return
    os.mkdir(name, 0o700, dir_fd=target)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
    try:
        job.write(folder)
    finally:
        os.close(folder)


def run(given: argparse.Namespace) -> None:
    """Do what was asked; whatever was not restored is an error."""
    if given.to is not None:
        check_target(given.to)
    recovery = Recovery(read_phrase(given.phrase_file))
    cell = Cell(given.cell)
    vaults: list[OpenVault] = []
    failed = 0
    try:
        chain = cell.open_account(recovery)
        for vault_id in chain.vaults():
            try:
                vaults.append(OpenVault(cell, chain, vault_id))
            except ReaderError as error:
                failed += 1
                note(f"vault {vault_id.hex()} cannot be read: {error}")
        found = [
            (vault, snapshot)
            for vault in vaults
            for snapshot in vault.snapshots
            if given.set is None or snapshot.set == given.set
        ]
        if given.list:
            print_list(chain, found)
        else:
            chosen = choose(found, given.snapshot)
            if not chosen:
                more = f", but {counted(failed, 'vault')} could not be read" if failed else ""
                raise ReaderError(f"there is no such snapshot{more}")
            not_whole = restore(chosen, given.to, given.special)
            if not_whole:
                raise ReaderError(f"{not_whole} of {counted(len(chosen), 'snapshot')} could not be restored whole")
        if failed:
            raise ReaderError(f"{counted(failed, 'vault')} could not be read")
    finally:
        for vault in vaults:
            vault.close()
        cell.close()


def main(words: list[str] | None = None) -> int:
    """The whole program: 0 if everything was done, 1 and one sentence if not."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = arguments(words)
    try:
        run(given)
        sys.stdout.flush()
        return 0
    except ReaderError as error:
        complain(str(error))
    except BrokenPipeError:
        # Nobody reads the list any more; the interpreter would say so once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        name = f"{shown(os.fsencode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
        complain(f"{name}{error.strerror or error}")
    except sqlite3.Error as error:
        complain(f"the cell's database cannot be read: {error}")
    except MemoryError:
        complain("there is not enough memory")
    except KeyboardInterrupt:
        complain("stopped")
    except Exception as error:
        # A mistake in this program, which hostile data found. It is told in one line like everything else.
        complain(f"a fault of this program: {type(error).__name__}: {error}")
    return 1


def complain(sentence: str) -> None:
    """Say why the program ends, in one line."""
    note(f"error: {' '.join(sentence.split())}")


if __name__ == "__main__":
    sys.exit(main())
