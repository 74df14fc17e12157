"""Writing a tree into a folder (tree.md, "Rules of a restore").

Everything is written relative to open directories, with names that were checked, and no symbolic
link is ever followed; so nothing outside of the target is touched, whatever the tree says, and
whoever else writes to the target meanwhile. What cannot be opened (links, pipes, devices) gets its
attributes through a handle, after it was seen that the handle is of what was just made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import stat
from typing import Callable

from . import tree
from .errors import Missing, ReaderError, Refused
from .tell import note, shown
from .tree import Entry
from .vault import Vault

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Most directories of one path that are open at once.
_KEPT_DIRECTORIES = 64
#: Errors of the target as a whole, which end a restore.
_FATAL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
_ON_REQUEST = stat.S_ISUID | stat.S_ISGID
_DEFAULT_ACL = "system.posix_acl_default"
_ACLS = ("system.posix_acl_access", _DEFAULT_ACL)
_KINDS = {
    tree.SYMLINK: stat.S_IFLNK,
    tree.FIFO: stat.S_IFIFO,
    tree.CHARACTER: stat.S_IFCHR,
    tree.BLOCK: stat.S_IFBLK,
}

#: Names from the target down.
Path = tuple[bytes, ...]


def check_target(path: str) -> None:
    """Refuse a target that is there already and is no empty folder."""
    try:
        with os.scandir(path) as entries:
            if next(entries, None) is not None:
                raise ReaderError(f"{path} is not empty: restore into a new or an empty folder")
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise ReaderError(f"{path} is no folder") from None


def open_target(path: str) -> int:
    """The target, which is made if it is not there. Only its own path may contain links."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        check_target(path)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class Directories:
    """Descriptors of the directory that a walk is in and of those above it, a bounded number at a time."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._open: dict[int, int] = {}

    def close(self) -> None:
        self.leave(1)

    def leave(self, depth: int) -> None:
        """Forget the directories from a depth on."""
        for level in [level for level in self._open if level >= depth]:
            os.close(self._open.pop(level))

    def at(self, path: Path) -> int:
        """The directory at `path`; the walk is there, so what is kept is on its way."""
        depth = len(path)
        if depth == 0:
            return self._top
        if depth in self._open:
            return self._open[depth]
        level = max((known for known in self._open if known < depth), default=0)
        fd = self._open.get(level, self._top)
        while level < depth:
            fd = os.open(path[level], _DIRECTORY, dir_fd=fd)
            level += 1
            self._open[level] = fd
            if len(self._open) > _KEPT_DIRECTORIES:
                lowest = min(self._open)
                os.close(self._open.pop(lowest))
        return fd


class Restore:
    """The restore of one snapshot into one empty folder.

    `entries` counts what the tree has, `lost` entries that could not be restored, and `noted` what is told and no loss:
    attributes that were refused, and what is made only on request or never.
    """

    def __init__(self, vault: Vault, root: tree.Root, special: bool) -> None:
        self._vault, self._root, self._special = vault, root, special
        self._as_root = os.geteuid() == 0
        self._target = -1
        #: Whether what is made in the target gets an access list that no entry has.
        self._inherits = False
        self._links = sqlite3.connect("", isolation_level=None)
        self._links.execute("CREATE TABLE link (same BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")
        self._links.execute("BEGIN")
        self._skipped: set[Path] = set()
        self.lost = 0
        self.noted = 0
        self.entries = 0

    def close(self) -> None:
        """Throw away what was kept about hard links."""
        self._links.close()

    def write(self, target: int) -> None:
        """Write the tree, which was verified, into an open folder."""
        self._target = target
        with contextlib.suppress(OSError):
            self._inherits = _DEFAULT_ACL in os.listxattr(target)
        self._write()
        self._finish_directories()

    def _read(self, reference: tree.Reference) -> bytes:
        return self._vault.chunk(*reference)

    def _lose(self, path: Path, why: str) -> None:
        self.lost += 1
        note(f"not restored: {shown(*path)}: {why}")

    def _remark(self, path: Path, what: str) -> None:
        self.noted += 1
        note(f"{shown(*path)}: {what}")

    # -- first pass: the whole tree is right (rule 1) ----------------------------------------

    def verify(self) -> None:
        """Read the whole tree, and find a place for every chunk of every file."""
        for step, _, entry in tree.walk(self._root, self._read):
            if step != tree.LEAF or entry.kind != tree.FILE:
                continue
            total = 0
            for name, length in tree.leaves(entry.content, self._read, tree.Held()):
                total += length
                if self._vault.places(name)[0][3] != length:
                    raise Refused("a chunk has another length than its reference says")
            if total != sum(length for _, length in entry.stretches):
                raise Refused("a file's chunks are not as long as its data")

    # -- second pass: everything but the directories' attributes -----------------------------

    def _write(self) -> None:
        directories = Directories(self._target)
        skipping: int | None = None
        try:
            for step, above, entry in tree.walk(self._root, self._read):
                if step == tree.LEAVE:
                    directories.leave(len(above) + 1)
                    if skipping == len(above):
                        skipping = None
                    continue
                if skipping is not None:
                    if step == tree.LEAF:
                        self.lost += 1
                    continue
                path = (*above, entry.name)
                if step == tree.REFUSED:
                    self._lose(path, "this name may not be written")
                    continue
                self.entries += 1
                parent = directories.at(above)
                if step == tree.LEAF:
                    self._try(path, lambda: self._leaf(parent, path, entry))
                elif not self._try(path, lambda: os.mkdir(entry.name, 0o700, dir_fd=parent)):
                    self._skipped.add(path)
                    skipping = len(above)
        finally:
            directories.close()

    def _try(self, path: Path, act: Callable[[], None]) -> bool:
        try:
            act()
        except Missing as error:
            self._lose(path, str(error))
            return False
        except OverflowError:
            self._lose(path, "it has a number that this system does not have")
            return False
        except OSError as error:
            if error.errno in _FATAL:
                raise
            clash = error.errno == errno.EEXIST
            why = "the target has another entry that it cannot tell apart" if clash else os.strerror(error.errno or 0)
            self._lose(path, why)
            return False
        return True

    def _leaf(self, parent: int, path: Path, entry: Entry) -> None:
        if entry.same_file is not None and self._join(parent, entry):
            return
        if entry.kind == tree.SOCKET:
            self._remark(path, "a socket is not made")
            return
        if entry.kind in (tree.CHARACTER, tree.BLOCK) and not self._special:
            self._remark(path, "a device node is made only with --special")
            return
        if entry.kind == tree.FILE:
            self._file(parent, path, entry)
        else:
            self._special_file(parent, path, entry)
        if entry.same_file is not None:
            joined = b"/".join(path)
            self._links.execute("INSERT OR IGNORE INTO link VALUES (?, ?)", (entry.same_file, joined))

    def _join(self, parent: int, entry: Entry) -> bool:
        """Make a further name of a file that was restored (rule 7)."""
        row = self._links.execute("SELECT path FROM link WHERE same = ?", (entry.same_file,)).fetchone()
        if row is None:
            return False
        *above, name = row[0].split(b"/")
        directories = Directories(self._target)
        try:
            first = directories.at(tuple(above))
            os.link(name, entry.name, src_dir_fd=first, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP):
                return False
            raise
        finally:
            directories.close()
        return True

    def _special_file(self, parent: int, path: Path, entry: Entry) -> None:
        """A link, a pipe or a device node, under its own name at once: it has no content to wait for."""
        kind = _KINDS[entry.kind]
        if entry.kind == tree.SYMLINK:
            os.symlink(entry.target, entry.name, dir_fd=parent)
        else:
            device = os.makedev(*entry.device) if entry.kind in (tree.CHARACTER, tree.BLOCK) else 0
            os.mknod(entry.name, kind | 0o600, device, dir_fd=parent)
        handle = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            made = os.fstat(handle)
            if stat.S_IFMT(made.st_mode) != kind or made.st_nlink != 1:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._attributes(f"/proc/self/fd/{handle}", path, entry)
        finally:
            os.close(handle)

    # -- files (rule 3) ----------------------------------------------------------------------

    def _file(self, parent: int, path: Path, entry: Entry) -> None:
        temporary = f".candor-{secrets.token_hex(8)}-{self.entries:x}.part".encode("ascii")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=parent)
        placed = False
        try:
            self._content(fd, entry)
            self._attributes(fd, path, entry)
            placed = _place(parent, temporary, entry.name)
        finally:
            os.close(fd)
            if not placed:
                os.unlink(temporary, dir_fd=parent)

    def _content(self, fd: int, entry: Entry) -> None:
        """Chunks one after another into the stretches of data; what is between them stays a hole."""
        stretches = iter(entry.stretches)
        at = room = 0
        for reference in tree.leaves(entry.content, self._read, tree.Held()):
            data = memoryview(self._read(reference))
            while data:
                if room == 0:
                    # There is one: the lengths were compared before anything was written.
                    at, room = next(stretches, (0, len(data)))
                written = os.pwrite(fd, data[:room], at)
                data = data[written:]
                at += written
                room -= written
        os.ftruncate(fd, entry.size)

    # -- attributes (rule 6) -----------------------------------------------------------------

    def _mode(self, path: Path, entry: Entry) -> int:
        if entry.mode & _ON_REQUEST and not self._special:
            self._remark(path, "its setuid or setgid bit is restored only with --special")
            return entry.mode & ~_ON_REQUEST
        return entry.mode

    def _each_xattr(self, place: int | str, path: Path, entry: Entry) -> None:
        for name, value in entry.xattrs:
            if not self._special and (name == b"security.capability" or name.startswith(b"trusted.")):
                self._remark(path, f"attribute {shown(name)} is restored only with --special")
                continue
            try:
                os.setxattr(place, name, value)
            except OSError as error:
                # A file system has little room for attributes: that one is full says nothing of the target.
                if error.errno in _FATAL and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._remark(path, f"attribute {shown(name)} was refused: {error.strerror}")

    def _attributes(self, place: int | str, path: Path, entry: Entry) -> None:
        """Owner, attributes, mode, times of an open file or directory, or of what a handle leads to.

        The owner first, since a new one clears capabilities and setuid; attributes before the mode, which may take the
        right to set them away; times last.
        """
        if self._as_root:
            self._remarked(path, "its owner", lambda: os.chown(place, entry.uid, entry.gid))
        if self._inherits and entry.kind != tree.SYMLINK:
            for name in _ACLS:
                self._remarked(path, f"that {name} be taken away", lambda: _remove_xattr(place, name))
        self._each_xattr(place, path, entry)
        if entry.kind != tree.SYMLINK:
            mode = self._mode(path, entry)
            self._remarked(path, "its mode", lambda: os.chmod(place, mode))
        self._remarked(path, "its time", lambda: os.utime(place, ns=(entry.time, entry.time)))
        if os.stat(place).st_mtime_ns != entry.time:
            self._remark(path, "the target cannot hold its time")

    def _remarked(self, path: Path, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            if error.errno in _FATAL:
                raise
            self._remark(path, f"{what} was refused: {error.strerror}")

    # -- third pass: directories' attributes, the deepest first (rule 7) ---------------------

    def _finish_directories(self) -> None:
        directories = Directories(self._target)
        skipping: int | None = None
        try:
            for step, above, entry in tree.walk(self._root, self._read):
                if step == tree.ENTER and skipping is None and (*above, entry.name) in self._skipped:
                    skipping = len(above)
                elif step == tree.LEAVE:
                    path = (*above, entry.name)
                    if skipping is None:
                        self._attributes(directories.at(path), path, entry)
                    elif skipping == len(above):
                        skipping = None
                    directories.leave(len(path))
        finally:
            directories.close()


def _remove_xattr(place: int | str, name: str) -> None:
    try:
        os.removexattr(place, name)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


def _place(parent: int, temporary: bytes, name: bytes) -> bool:
    """Give a finished file its name without replacing anything; a file system without hard links cannot promise that."""
    try:
        os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        os.unlink(temporary, dir_fd=parent)
        return True
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        return True
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
