"""A whole cell, if one is named: CANDOR_SAMPLE_CELL, CANDOR_SAMPLE_PHRASE (a file), CANDOR_SAMPLE_TREE."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
NAMED = [os.environ.get(f"CANDOR_SAMPLE_{name}") for name in ("CELL", "PHRASE", "TREE")]


@unittest.skipUnless(all(NAMED), "no sample is named")
class Sample(unittest.TestCase):
    def test_restores_what_was_backed_up(self) -> None:
        cell, phrase, source = (Path(name).resolve() for name in NAMED if name)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            reader = [sys.executable, "-m", "candor_reader", "--cell", cell, "--phrase-file", phrase]
            subprocess.run([*reader, "--set", source.name, "--to", out, "--special"], cwd=TOP, check=True)
            subprocess.run([sys.executable, "compare_trees.py", source, out / source.name], cwd=TOP, check=True)


if __name__ == "__main__":
    unittest.main()
