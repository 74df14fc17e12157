"""What the person is told, on one line each, whatever somebody put into a name."""

from __future__ import annotations

import sys


def printable(text: str) -> str:
    """A text without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shown(*names: bytes) -> str:
    """A path as a person can read it."""
    return printable(b"/".join(names).decode("utf-8", "backslashreplace"))


def note(sentence: str) -> None:
    """Tell something that ends nothing."""
    print(f"candor_reader: {printable(sentence)}", file=sys.stderr)
