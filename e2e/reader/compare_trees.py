"""Compare two trees entry by entry: kinds, modes, owners, times, hard links, holes, attributes, content.

    python3 compare_trees.py FIRST SECOND [--no-root]

Every difference is printed; the last line counts them. The exit code is 1 if there are any. With `--no-root` the two
folders themselves are not compared, only what is in them. Access and change times are not compared.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from typing import Any


def stretches(path: bytes, size: int) -> list[tuple[int, int]]:
    """Stretches of data of a file, as its file system tells them."""
    result = []
    fd = os.open(path, os.O_RDONLY)
    try:
        at = 0
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            result.append((start, at))
    finally:
        os.close(fd)
    return result


def digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts(top: bytes, with_root: bool) -> dict[bytes, tuple[Any, ...]]:
    """All that is compared, by path below `top`."""
    found: dict[bytes, tuple[Any, ...]] = {}
    groups: dict[tuple[int, int], bytes] = {}
    waiting = [b""]
    while waiting:
        relative = waiting.pop()
        path = os.path.join(top, relative) if relative else top
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        names = sorted(os.listxattr(path, follow_symlinks=False))
        attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
        more: tuple[Any, ...] = ()
        if kind == stat.S_IFREG:
            more = (status.st_size, digest(path), tuple(stretches(path, status.st_size)))
        elif kind == stat.S_IFLNK:
            more = (os.readlink(path),)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            more = (status.st_rdev,)
        same = None
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            same = groups.setdefault((status.st_dev, status.st_ino), relative)
        if relative or with_root:
            owner = (status.st_uid, status.st_gid)
            found[relative] = (oct(status.st_mode), owner, status.st_mtime_ns, same, attributes, more)
        if kind == stat.S_IFDIR:
            waiting += (os.path.join(relative, name) for name in sorted(os.listdir(path), reverse=True))
    return found


def main() -> int:
    paths = [word for word in sys.argv[1:] if word != "--no-root"]
    if len(paths) != 2:
        print("usage: compare_trees.py FIRST SECOND [--no-root]", file=sys.stderr)
        return 2
    first, second = (facts(os.fsencode(path), "--no-root" not in sys.argv) for path in paths)
    differences = 0
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            differences += 1
            print(name, first.get(name), second.get(name), sep="\n   ")
    print(f"{len(first)} entries, {differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
