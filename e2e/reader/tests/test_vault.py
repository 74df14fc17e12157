import os
import unittest

from blake3 import blake3

from candor_reader import keys, vault as v
from candor_reader.errors import Refused

from . import made, support

KINDS = {"pack": v.PACK, "index": v.INDEX, "manifest": v.MANIFEST}


def in_file(data: bytes) -> int:
    fd = os.memfd_create("object")
    os.write(fd, data)
    return fd


def plaintext(length: int) -> bytes:
    return (bytes((7 * i + 3) % 256 for i in range(256)) * (length // 256 + 1))[:length]


def seal(block: dict[str, str]) -> bytes:
    """The object that a block describes (vault.md, "Sealed objects")."""
    key, account, vault, salt = (bytes.fromhex(block[name]) for name in ("epoch_key", "account", "vault", "salt"))
    plain = plaintext(int(block["plaintext_bytes"]))
    return made.seal(key, (account, vault, int(block["epoch"])), KINDS[block["type"]], plain, salt)


def open_whole(block: dict[str, str], data: bytes) -> bytes:
    fd = in_file(data)
    try:
        epoch, key = int(block["epoch"]), bytes.fromhex(block["epoch_key"])
        sealed = v.SealedObject(
            fd,
            len(data),
            bytes.fromhex(block["account"]),
            bytes.fromhex(block["vault"]),
            KINDS[block["type"]],
            lambda number: key if number == epoch else None,
        )
        return sealed.read(0, sealed.length)
    finally:
        os.close(fd)


def change(data: bytes, words: list[str], block: dict[str, str]) -> bytes:
    """A change of seal/rejected.txt; `open-with` changes the block instead."""
    raw = bytearray(data)
    segments = [bytes(raw[at : at + v.SEALED_SEGMENT]) for at in range(v.HEADER, len(raw), v.SEALED_SEGMENT)]
    match words:
        case ["flip", offset, bit]:
            raw[int(offset)] ^= 1 << int(bit)
        case ["set", offset, byte]:
            raw[int(offset)] = int(byte)
        case ["truncate", length]:
            del raw[int(length) :]
        case ["append", more]:
            raw += bytes.fromhex(more)
        case ["append-segment", n]:
            raw += segments[int(n)]
        case ["swap-segments", a, b]:
            segments[int(a)], segments[int(b)] = segments[int(b)], segments[int(a)]
            raw[v.HEADER :] = b"".join(segments)
        case ["drop-segment", n]:
            del segments[int(n)]
            raw[v.HEADER :] = b"".join(segments)
        case ["open-with", field, value]:
            block[field] = value
        case _:
            raise AssertionError(words)
    return bytes(raw)


class Seal(unittest.TestCase):
    def test_accepted(self) -> None:
        for block in support.blocks("seal/accepted.txt"):
            with self.subTest(block["name"]):
                data = seal(block)
                self.assertEqual(data[:96].hex()[: len(block["object_start"])], block["object_start"])
                self.assertEqual(len(data), int(block["object_bytes"]))
                self.assertEqual(blake3(data).hexdigest(), block["object"])
                self.assertEqual(open_whole(block, data), plaintext(int(block["plaintext_bytes"])))

    def test_rejected(self) -> None:
        bases = {block["name"]: block for block in support.blocks("seal/accepted.txt")}
        for wrong in support.blocks("seal/rejected.txt"):
            with self.subTest(**wrong):
                block = dict(bases[wrong["base"]])
                data = change(seal(bases[wrong["base"]]), wrong["change"].split(), block)
                with self.assertRaises(Refused) as caught:
                    open_whole(block, data)
                self.assertEqual("not known" in str(caught.exception), wrong["error"] == "version")

    def test_ranges(self) -> None:
        block = [b for b in support.blocks("seal/accepted.txt") if b["name"] == "three-segments"][0]
        data, plain = seal(block), plaintext(int(block["plaintext_bytes"]))
        fd = in_file(data)
        key = bytes.fromhex(block["epoch_key"])
        sealed = v.SealedObject(
            fd, len(data), bytes.fromhex(block["account"]), bytes.fromhex(block["vault"]), v.PACK, lambda _: key
        )
        for start, length in ((0, 1), (65535, 2), (65536, 65536), (131071, 3), (131072, 1000), (10, 131000), (5, 0)):
            self.assertEqual(sealed.read(start, length), plain[start : start + length])
        with self.assertRaises(Refused):
            sealed.read(len(plain), 1)
        os.close(fd)

    def test_chunk_ids(self) -> None:
        for block in support.blocks("seal/chunk-id.txt"):
            key = keys.chunk_id_key(*(bytes.fromhex(block[n]) for n in ("epoch_key", "account", "vault")))
            data = plaintext(int(block["plaintext_bytes"]))
            self.assertEqual(blake3(data, key=key).hexdigest(), block["chunk"])

    def test_files_of_other_sizes_or_names_are_refused(self) -> None:
        data = bytes(65536)
        fd = in_file(data)
        self.assertEqual(v.check_file(fd, blake3(data).digest()), 65536)
        with self.assertRaises(Refused):
            v.check_file(fd, bytes(32))
        os.close(fd)
        fd = in_file(data + b"\0")
        with self.assertRaises(Refused):
            v.check_file(fd, blake3(data + b"\0").digest())
        os.close(fd)


class Plain:
    """A plaintext in the place of a sealed object."""

    def __init__(self, data: bytes) -> None:
        self.data, self.length = data, len(data)

    def read(self, start: int, length: int) -> bytes:
        if start < 0 or start + length > self.length:
            raise Refused("outside")
        return self.data[start : start + length]


class Packs(unittest.TestCase):
    def test_accepted(self) -> None:
        first = next(support.blocks("seal/chunk-id.txt"))
        key = keys.chunk_id_key(*(bytes.fromhex(first[n]) for n in ("epoch_key", "account", "vault")))
        for block in support.blocks("pack/accepted.txt"):
            data = bytes.fromhex(block["plaintext"])
            pack = v.Pack(Plain(data), check_padding=True)  # type: ignore[arg-type]
            length = int.from_bytes(data[-4:], "big")
            table = v.Table.decode(data[-4 - length : -4])
            self.assertEqual(len(table.frames), int(block["frames"]))
            self.assertEqual([name.hex() for name, _ in table.names], block["chunks"].split())
            for name, frame, start, size in v._places(table):
                chunk = pack.frame(frame)[start : start + size]
                self.assertEqual(blake3(chunk, key=key).digest(), name)

    def test_rejected(self) -> None:
        for block in support.blocks("pack/rejected.txt"):
            with self.subTest(block["why"]):
                with self.assertRaises(Refused):
                    v.Pack(Plain(bytes.fromhex(block["plaintext"])), check_padding=True)  # type: ignore[arg-type]

    def test_frames_that_are_not_what_they_say(self) -> None:
        import zstandard

        data = b"to be or not to be " * 1000
        good = zstandard.ZstdCompressor(write_content_size=False).compress(data)
        sized = zstandard.ZstdCompressor().compress(data)
        for stored in (good, sized):
            self.assertEqual(v.unpack_frame(v.Frame(1, 0, len(stored), len(data), 1), stored), data)
            for plain in (len(data) - 1, len(data) + 1, 1):
                with self.assertRaises(Refused):
                    v.unpack_frame(v.Frame(1, 0, len(stored), plain, 1), stored)
        bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28))
        for stored in (good[:-1], good + b"\0", good + good, b"\x50\x2a\x4d\x18" + bytes(20), bomb, b""):
            with self.assertRaises(Refused):
                v.unpack_frame(v.Frame(1, 0, len(stored), len(data), 1), stored)


class Indexes(unittest.TestCase):
    @staticmethod
    def decode(body: bytes) -> list[tuple[bytes, int]]:
        packs = []
        for name, size, table in v.index_packs(body):
            v.Table.decode(table)
            packs.append((name, size))
        return packs

    def test_accepted(self) -> None:
        for block in support.blocks("index/accepted.txt"):
            packs = self.decode(bytes.fromhex(block["body"]))
            self.assertEqual([name.hex() for name, _ in packs], block["packs"].split())
            self.assertEqual([str(size) for _, size in packs], block["sizes"].split())

    def test_rejected(self) -> None:
        for block in support.blocks("index/rejected.txt"):
            with self.subTest(block["why"]):
                with self.assertRaises(Refused):
                    self.decode(bytes.fromhex(block["body"]))


class Manifests(unittest.TestCase):
    @staticmethod
    def decode(block: dict[str, str]) -> v.Manifest:
        return v.Manifest.decode(*(bytes.fromhex(block[n]) for n in ("body", "account", "vault")))

    def test_accepted(self) -> None:
        for block in support.blocks("manifest/accepted.txt"):
            manifest = self.decode(block)
            self.assertEqual(manifest.counter, int(block["counter"]))
            self.assertEqual(len(manifest.snapshots), int(block["snapshots"]))
            self.assertEqual(len(manifest.indexes), int(block["indexes"]))

    def test_rejected(self) -> None:
        for block in support.blocks("manifest/rejected.txt"):
            with self.subTest(block["why"]):
                with self.assertRaises(Refused):
                    self.decode(block)


if __name__ == "__main__":
    unittest.main()
