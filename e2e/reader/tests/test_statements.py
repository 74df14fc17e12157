import unittest
from typing import Any, Callable

from candor_reader import cbor, statements as st
from candor_reader.errors import Refused

from . import made, support

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "genesis": st.Genesis.decode,
    "device-added": st.DeviceAdded.decode,
    "entry": st.Entry.decode,
    "epoch": st.Epoch.decode,
    "record": st.Record.decode,
    "signed-entry": lambda raw: st.Statement.decode(raw, bytes(32)),
    "head": st.Head.decode,
    "run-head": st.Head.decode,
    "device-revoked": st.DeviceRevoked.decode,
    "re-anchor": st.ReAnchor.decode,
    "consent": st.Consent.decode,
    "withdrawal": st.Withdrawal.decode,
    "erasure-asked": st.ErasureAsked.decode,
    "erasure-cancelled": st.ErasureCancelled.decode,
    "cell-keys": st.CellKeys.decode,
    "acknowledgement": st.Acknowledgement.decode,
    "api-cell": st.cell_description,
}


class Wire(unittest.TestCase):
    def test_vectors(self) -> None:
        for file, decode in DECODERS.items():
            for accepted, name, raw in support.wire(file):
                with self.subTest(file=file, name=name):
                    if accepted:
                        decode(raw)
                    else:
                        with self.assertRaises(Refused):
                            decode(raw)

    def test_a_record_is_what_its_commitment_says(self) -> None:
        for accepted, name, raw in support.wire("record"):
            if accepted:
                record = st.Record.decode(raw)
                if record.statement:
                    with self.subTest(name):
                        self.assertEqual(record.statement.commitment(), record.commitment)
                        self.assertEqual(record.statement.entry.sequence, record.sequence)
                        if record.acknowledgement:
                            entry = record.statement.entry
                            link = st.link(record.sequence, record.kind, entry.previous, record.commitment)
                            self.assertEqual(record.acknowledgement.link, link)


class Limits(unittest.TestCase):
    """What the vectors do not have."""

    def test_consents(self) -> None:
        good = made.consent(made.D1)
        st.Consent.decode(cbor.encode(good))
        ends = 13 * 31 * 86_400_000
        st.Consent.decode(cbor.encode(good | {17: ends, 18: "x" * 256}))
        wrong: list[dict[int, Any]] = [
            {11: 2**32}, {17: ends + 1}, {17: 0}, {18: ""}, {18: "x" * 257}, {8: []}, {8: [2, 1]}, {8: [1, 1]}, {8: [6]},
            {9: [5]}, {3: 3}, {10: 2}, {14: 4}, {5: {0: made.CELL, 1: "", 2: "here"}},
        ]  # fmt: skip
        for change in wrong:
            with self.subTest(change), self.assertRaises(Refused):
                st.Consent.decode(cbor.encode(good | change))

    def test_cell_keys(self) -> None:
        """Texts of a cell's keys have no limit of their own."""
        good: dict[int, Any] = {0: 1, 1: made.CELL, 2: 1, 3: bytes(32), 4: 0, 5: "", 6: "x" * 1000, 7: 30}
        st.CellKeys.decode(cbor.encode(good | {9: 2, 10: {0: "", 1: 0, 2: bytes(32)}}))
        for change in ({2: 0}, {2: 2**32}, {7: 2**32}, {6: "x" * 2000}):
            with self.subTest(change), self.assertRaises(Refused):
                st.CellKeys.decode(cbor.encode(good | change))

    def test_re_anchorings(self) -> None:
        mark = {0: 0, 1: bytes(32)}
        heads = [{0: made.VAULT, 1: {0: 1, 1: bytes(32)}, 2: mark}]
        good: dict[int, Any] = {0: 1, 1: mark, 2: mark, 3: heads, 4: {0: "", 1: 0, 2: bytes(32)}}
        self.assertEqual(st.ReAnchor.decode(cbor.encode(good)).heads, {made.VAULT: st.Mark(0, bytes(32))})
        same = [{0: made.VAULT, 1: {0: 1, 1: bytes(32)}, 2: {0: 1, 1: bytes(32)}}]
        newer = [{0: made.VAULT, 1: {0: 1, 1: bytes(32)}, 2: {0: 2, 1: bytes(32)}}]
        for change in ({3: same}, {3: newer}, {3: heads * 2}):
            with self.subTest(change), self.assertRaises(Refused):
                st.ReAnchor.decode(cbor.encode(good | change))

    def test_lengths(self) -> None:
        """The length is compared before anything is decoded."""
        for decode, most in (
            (st.Entry.decode, 160 * 1024),
            (st.Record.decode, 162 * 1024),
            (st.Head.decode, 640 * 1024 + 128),
            (st.CellKeys.decode, 2048),
        ):
            with self.assertRaisesRegex(Refused, "longer than it may be"):
                decode(bytes(most + 1))
            with self.assertRaises(Refused) as caught:
                decode(bytes(most))
            self.assertNotIn("longer", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
