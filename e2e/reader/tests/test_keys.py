import unittest

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from candor_reader import cbor, keys, words
from candor_reader.errors import ReaderError, Refused
from candor_reader.statements import Epoch

from . import support


class Phrase(unittest.TestCase):
    def test_accepted(self) -> None:
        for entropy, text, root, recovery in support.columns("phrase/accepted.txt"):
            with self.subTest(entropy):
                self.assertEqual(words.entropy(text).hex(), entropy)
                self.assertEqual(words.phrase(bytes.fromhex(entropy)), text)
                found = keys.Recovery(text)
                self.assertEqual(found.root.fingerprint().hex(), root)
                self.assertEqual(blake3(found.recovery.public).hexdigest(), recovery)

    def test_rejected(self) -> None:
        for error, text in support.columns("phrase/rejected.txt"):
            with self.subTest(error):
                with self.assertRaises(ReaderError):
                    words.entropy(text)


    def test_what_a_person_types(self) -> None:
        text = words.phrase(bytes(32))
        self.assertEqual(words.entropy(f"\t{text.upper()}\n".replace(" ", "\n  ")), bytes(32))
        kelvin = words.phrase(b"k" * 32).replace("k", "\u212a")
        self.assertIn("\u212a", kelvin)
        with self.assertRaisesRegex(ReaderError, "word [0-9]+ of"):
            words.entropy(kelvin)
        with self.assertRaisesRegex(ReaderError, "4096 bytes"):
            words.entropy(text + " " * 4096)


def open_epoch(account: str, recipient: str, seed: str, record: str) -> bytes:
    """Keys of all epochs up to that of a record, joined."""
    body = Epoch.decode(bytes.fromhex(record))
    owner = bytes.fromhex(account)
    device = None if recipient == "-" else bytes.fromhex(recipient)
    pair = keys.XWing(bytes.fromhex(seed))
    where = keys.place(owner, body.vault, body.epoch)
    wraps = [wrap for wrap in body.wraps if wrap.device == device]
    if not wraps:
        raise Refused("there is no wrap for this recipient")
    key = keys.open_wrap(pair, owner, body.vault, body.epoch, device, wraps[0].enc, wraps[0].ciphertext)
    if keys.epoch_pair(key, where).public != body.public:
        raise Refused("the key does not fit")
    return b"".join([*keys.open_earlier(key, where, body.epoch, body.earlier), key])


class Epochs(unittest.TestCase):
    def test_accepted(self) -> None:
        for account, recipient, seed, opened, record in support.columns("epoch/accepted.txt"):
            with self.subTest(recipient):
                self.assertEqual(open_epoch(account, recipient, seed, record).hex(), opened)

    def test_rejected(self) -> None:
        for number, (account, recipient, seed, record) in enumerate(support.columns("epoch/rejected.txt")):
            with self.subTest(number):
                with self.assertRaises(Refused):
                    open_epoch(account, recipient, seed, record)


class Hpke(unittest.TestCase):
    def test_a_point_of_small_order_is_hashed_like_any_other(self) -> None:
        """X-Wing does not refuse it, so a reader that did would refuse what others open."""
        pair = keys.XWing(bytes(32))
        secret, sealed = mlkem.MLKEM768PublicKey.from_public_bytes(pair.public[:1184]).encapsulate()
        shared = keys.combine(secret, bytes(32), bytes(32), pair.public[1184:])
        key, nonce = keys.hpke_schedule(shared, b"info")
        text = AESGCM(key).encrypt(nonce, b"text", b"")
        self.assertEqual(pair.hpke_open(sealed + bytes(32), text, b"info"), b"text")
        for enc, wrong in ((sealed, text), (sealed + bytes(33), text), (sealed + bytes(32), b""), (b"", text)):
            with self.assertRaises(Refused):
                pair.hpke_open(enc, wrong, b"info")


class Signatures(unittest.TestCase):
    def test_points_of_small_order_and_other_spellings_are_refused(self) -> None:
        for y in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18):
            for sign in (0, 1 << 255):
                point = (y | sign).to_bytes(32, "little")
                self.assertFalse(keys.ed25519_valid(point, bytes(64), b""))
                self.assertFalse(keys.ed25519_valid(bytes(31) + b"\x01", point + bytes(32), b""))

    def test_the_points_of_order_eight_are_on_the_curve(self) -> None:
        p = keys._P
        y2 = keys._ORDER_8**2 % p
        d = -121665 * pow(121666, -1, p) % p
        x2 = (y2 - 1) * pow(d * y2 + 1, -1, p) % p
        # Doubling a point of order eight gives one of order four, with y = 0: y² + x² = 0 before.
        self.assertEqual((y2 + x2) % p, 0)

    def test_ids_of_cbor_are_not_confused(self) -> None:
        self.assertEqual(cbor.decode(cbor.encode(2**64 - 1)), 2**64 - 1)


if __name__ == "__main__":
    unittest.main()
