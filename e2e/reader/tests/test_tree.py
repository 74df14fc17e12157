import unittest

from candor_reader import cbor, tree
from candor_reader.errors import Refused

from . import support

DECODERS = {
    "part": lambda raw: list(tree.iter_part(raw)),
    "list": tree.decode_list,
    "root": tree.Root.decode,
}


class Records(unittest.TestCase):
    def test_accepted(self) -> None:
        for block in support.blocks("tree/accepted.txt", " "):
            with self.subTest(block["name"]):
                DECODERS[block["record"]](bytes.fromhex(block["hex"]))

    def test_rejected(self) -> None:
        for block in support.blocks("tree/rejected.txt", " "):
            with self.subTest(block["name"]):
                with self.assertRaises(Refused):
                    DECODERS[block["record"]](bytes.fromhex(block.get("hex", "")))

    def test_details(self) -> None:
        parts = {
            block["name"]: list(tree.iter_part(bytes.fromhex(block["hex"])))
            for block in support.blocks("tree/accepted.txt", " ")
            if block["record"] == "part"
        }
        self.assertEqual(parts["sparse_file"][0].stretches, [(5, 4), (29, 6)])
        self.assertEqual((parts["all_hole"][0].stretches, parts["all_hole"][0].size), ([], 4096))
        self.assertEqual([entry.refused for entry in parts["refused_names"]].count(False), 1)
        self.assertFalse(any(entry.refused for entry in parts["odd_names"]))
        self.assertEqual(len({entry.same_file for entry in parts["hard_links"]}), 1)
        self.assertEqual(parts["old_time"][0].time, -1)
        self.assertEqual([e.time for e in parts["extreme_times"]], [-(2**63), 2**63 - 1])


    def test_a_full_part(self) -> None:
        """The bound on items is one of each entry, and not of the part."""
        count = 60_000
        self.assertGreater(9 * count, cbor.MAX_ITEMS)
        head = cbor.encode({0: 1, 1: []})[:-1] + b"\x99" + count.to_bytes(2, "big")
        before, after = cbor.encode({0: b"name", 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 8: b"", 10: 0}).split(b"name")
        entries = b"".join(before + number.to_bytes(4, "big") + after for number in range(count))
        self.assertEqual(sum(1 for _ in tree.iter_part(head + entries)), count)


class Walk(unittest.TestCase):
    def test_parts_of_one_directory_ascend(self) -> None:
        chunks: dict[bytes, bytes] = {}

        def reference(raw: bytes) -> tree.Reference:
            name = len(chunks).to_bytes(32, "big")
            chunks[name] = raw
            return name, len(raw)

        def part(*names: bytes) -> tree.Reference:
            entries = [{0: n, 1: 0, 2: 0o644, 3: 0, 4: 0, 5: 0, 8: b"", 10: 0} for n in names]
            return reference(cbor.encode({0: 1, 1: entries}))

        def names(*parts: tree.Reference) -> list[bytes]:
            root = tree.Root(tree.Content(list(parts), 0), [])
            return [entry.name for _, _, entry in tree.walk(root, lambda r: chunks[r[0]])]

        self.assertEqual(names(part(b"a", b"b"), part(b"c")), [b"a", b"b", b"c"])
        for wrong in ((b"b",), (b"a",), (b"\0",)):
            with self.assertRaises(Refused):
                names(part(b"a", b"b"), part(*wrong))

    def test_a_tree_without_end_is_refused(self) -> None:
        """Every directory holds the same directory once more."""
        inner = cbor.encode({0: 1, 1: [{0: b"d", 1: 1, 2: 0o755, 3: 0, 4: 0, 5: 0, 8: bytes(32) + b"\0\0\0\x3d"}]})
        root = tree.Root(tree.Content([(bytes(32), 61)], 0), [])
        with self.assertRaisesRegex(Refused, "deeper"):
            for _ in tree.walk(root, lambda _: inner):
                pass

    def test_lists_without_end_are_refused(self) -> None:
        full = b"".join(bytes(32) + b"\0\0\0\x01" for _ in range(2048))
        raw = cbor.encode({0: 1, 1: full})
        content = tree.Content([(bytes(32), 1)], 3)
        held = tree.Held()
        leaves = tree.leaves(content, lambda _: raw, held)
        for _ in range(10_000):
            next(leaves)
        self.assertLess(held.bytes, 4 * len(raw))


if __name__ == "__main__":
    unittest.main()
