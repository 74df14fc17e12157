import unittest

from candor_reader import cbor
from candor_reader.errors import Refused

from . import support


class Cbor(unittest.TestCase):
    def test_everything_that_is_accepted_has_one_spelling(self) -> None:
        for file in sorted((support.VECTORS / "wire").glob("*.txt")):
            for accepted, name, raw in support.wire(file.stem):
                if not accepted:
                    continue
                with self.subTest(file=file.stem, name=name):
                    self.assertEqual(cbor.encode(cbor.decode(raw)), raw)

    def test_other_spellings_are_refused(self) -> None:
        wrong = {
            "nothing": "", "a long number": "1801", "a longer number": "190001", "the longest number": "1b0000000000000001",
            "indefinite bytes": "5f4101ff", "an indefinite array": "9f01ff", "an indefinite map": "bf0001ff",
            "null": "f6", "undefined": "f7", "a float": "f90000", "a tag": "c001", "a text key": "a1616101",
            "a negative key": "a12001", "keys that descend": "a201000000", "a key twice": "a200010001",
            "a cut string": "4201", "bytes left": "0000", "text that is not UTF-8": "61ff", "a long true": "f815",
            "a huge array": "9b1000000000000000", "a huge map": "bb1000000000000000", "a reserved length": "1c",
            "too deep": "81" * 40 + "00",
        }  # fmt: skip
        for name, raw in wrong.items():
            with self.subTest(name):
                with self.assertRaises(Refused):
                    cbor.decode(bytes.fromhex(raw))

    def test_few_bytes_do_not_stand_for_many_objects(self) -> None:
        count = cbor.MAX_ITEMS
        self.assertEqual(len(cbor.decode(b"\x9a" + (count - 1).to_bytes(4, "big") + b"\xa0" * (count - 1))), count - 1)
        with self.assertRaisesRegex(Refused, "more items"):
            cbor.decode(b"\x9a" + count.to_bytes(4, "big") + b"\xa0" * count)

    def test_fields_that_nobody_takes_are_refused(self) -> None:
        f = cbor.Fields({0: 1, 1: True}, "thing")
        f.version()
        with self.assertRaises(Refused):
            f.uint(1)
        with self.assertRaises(Refused):
            cbor.Fields({0: True}, "thing").version()
        f = cbor.Fields({0: 1, 9: 1}, "thing")
        f.version()
        with self.assertRaises(Refused):
            f.done()


if __name__ == "__main__":
    unittest.main()
