"""Reading the vector files (README.md, "Vectors")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

VECTORS = Path(os.environ.get("CANDOR_VECTORS", Path(__file__).resolve().parent.parent / "../../vectors"))


def lines(name: str) -> Iterator[str]:
    for line in (VECTORS / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


def columns(name: str) -> Iterator[list[str]]:
    """Files whose fields are separated by ` | `."""
    for line in lines(name):
        yield [field.strip() for field in line.split(" | ")] if " | " in line else [line.strip(" |"), ""]


def wire(name: str) -> Iterator[tuple[bool, str, bytes]]:
    """`accept NAME HEX` and `reject NAME REASON HEX`."""
    for line in lines(f"wire/{name}.txt"):
        fields = line.split(" ")
        if fields[0] == "accept":
            yield True, fields[1], bytes.fromhex(fields[2])
        else:
            yield False, fields[1], bytes.fromhex(fields[3] if len(fields) > 3 else "")


def blocks(name: str, separator: str = " = ") -> Iterator[dict[str, str]]:
    """Blocks of named fields with an empty line between them."""
    block: dict[str, str] = {}
    for line in [*(VECTORS / name).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if block:
                yield block
            block = {}
            continue
        key, _, value = line.partition(separator)
        block[key.strip()] = value.strip()
