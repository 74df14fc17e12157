"""Hashes, signatures, derivations and wraps (README.md, keystore.md, statements.md)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import words
from .errors import Refused

#: Length of an encapsulated X-Wing key, in bytes: ML-KEM-768's ciphertext and an X25519 key.
ENC_BYTES = 1120
#: Length of an X-Wing public key, in bytes: ML-KEM-768's and X25519's.
XWING_PUBLIC_BYTES = 1216
#: Most epochs of one scope whose keys are opened (keystore.md, "Keys of epochs").
MAX_EPOCHS = 2_048


# -- hashes and derivations ------------------------------------------------------------------


def hkdf(ikm: bytes, info: bytes, length: int = 32, salt: bytes | None = None) -> bytes:
    """HKDF-SHA256, extract and expand (RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(ikm)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def derive_hash(context: str, data: bytes) -> bytes:
    """BLAKE3 in key-derivation mode."""
    return blake3(data, derive_key_context=context).digest()


def label(text: str) -> bytes:
    """`text || 0x00 || version 1`, with which signed and hashed inputs begin (README.md)."""
    return text.encode("ascii") + b"\x00\x01"


# -- signatures ------------------------------------------------------------------------------

_P = 2**255 - 19
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
#: The y of every point whose order divides 8; its sign does not matter here.
_SMALL_ORDER = frozenset((0, 1, _P - 1, _ORDER_8, _P - _ORDER_8))


def _proper_point(encoded: bytes) -> bool:
    """Whether a point is canonical and not of small order (README.md, "checked strictly")."""
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    return y < _P and y not in _SMALL_ORDER


def ed25519_valid(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature holds, checked strictly and without the cofactor."""
    if len(signature) != 64 or not (_proper_point(public) and _proper_point(signature[:32])):
        return False
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def ml_dsa_valid(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an ML-DSA-65 signature with an empty context holds."""
    try:
        mldsa.MLDSA65PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class SigningKey:
    """The public halves of a pair that signs statements (statements.md, "Kinds")."""

    ed25519: bytes
    ml_dsa: bytes

    def fingerprint(self) -> bytes:
        return hashlib.sha256(label("candor key fingerprint") + self.ed25519 + self.ml_dsa).digest()

    def valid(self, message: bytes, ed_signature: bytes, ml_signature: bytes) -> bool:
        return ed25519_valid(self.ed25519, ed_signature, message) and ml_dsa_valid(
            self.ml_dsa, ml_signature, message
        )


# -- sealed values ---------------------------------------------------------------------------


def open_sealed(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """`nonce (12) || ciphertext || tag (16)` with AES-256-GCM (keystore.md, "The seal")."""
    if len(sealed) < 28:
        raise Refused("a sealed value is too short")
    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[12:], aad)
    except InvalidTag:
        raise Refused("a sealed value does not open") from None


# -- X-Wing and HPKE -------------------------------------------------------------------------

_SUITE = b"HPKE" + bytes.fromhex("647a00010002")
_KEM_LABEL = b"\\.//^\\"


class XWing:
    """An X-Wing key pair of a 32-byte seed (draft-connolly-cfrg-xwing-kem)."""

    def __init__(self, seed: bytes) -> None:
        expanded = hashlib.shake_256(seed).digest(96)
        self._ml = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self._x = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
        self._x_public = self._x.public_key().public_bytes_raw()
        self.public = self._ml.public_key().public_bytes_raw() + self._x_public

    def _decapsulate(self, enc: bytes) -> bytes:
        ml_secret = self._ml.decapsulate(enc[:1088])
        try:
            x_secret = self._x.exchange(x25519.X25519PublicKey.from_public_bytes(enc[1088:]))
        except ValueError:
            # A point of small order gives zeros, which X-Wing hashes like any other secret.
            x_secret = bytes(32)
        return combine(ml_secret, x_secret, enc[1088:], self._x_public)

    def hpke_open(self, enc: bytes, ciphertext: bytes, info: bytes) -> bytes:
        """HPKE in base mode, first message, without associated data (RFC 9180)."""
        if len(enc) != ENC_BYTES:
            raise Refused("a wrapped key has an encapsulation of a wrong length")
        try:
            key, nonce = hpke_schedule(self._decapsulate(enc), info)
            return AESGCM(key).decrypt(nonce, ciphertext, b"")
        except (InvalidTag, ValueError):
            raise Refused("a wrapped key does not open") from None


def combine(ml_secret: bytes, x_secret: bytes, x_sealed: bytes, x_public: bytes) -> bytes:
    """X-Wing's shared secret, of the two secrets, the ephemeral X25519 key and the recipient's."""
    return hashlib.sha3_256(ml_secret + x_secret + x_sealed + x_public + _KEM_LABEL).digest()


def hpke_schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """HPKE's key schedule in base mode: key and nonce of the first message."""
    psk_id_hash = _labeled_extract(b"", b"psk_id_hash", b"")
    info_hash = _labeled_extract(b"", b"info_hash", info)
    context = b"\x00" + psk_id_hash + info_hash
    secret = _labeled_extract(shared, b"secret", b"")
    return _labeled_expand(secret, b"key", context, 32), _labeled_expand(secret, b"base_nonce", context, 12)


def _labeled_extract(salt: bytes, name: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + _SUITE + name + ikm, "sha256")


def _labeled_expand(prk: bytes, name: bytes, info: bytes, length: int) -> bytes:
    message = length.to_bytes(2, "big") + b"HPKE-v1" + _SUITE + name + info
    return hmac.digest(prk, message + b"\x01", "sha256")[:length]


# -- the recovery phrase ---------------------------------------------------------------------


class Recovery:
    """What follows from the phrase (keystore.md, "The recovery phrase")."""

    def __init__(self, phrase: str) -> None:
        secret = words.entropy(phrase)
        ed = ed25519.Ed25519PrivateKey.from_private_bytes(hkdf(secret, b"candor/phrase/root/ed25519/1"))
        ml = mldsa.MLDSA65PrivateKey.from_seed_bytes(hkdf(secret, b"candor/phrase/root/ml-dsa-65/1"))
        self.root = SigningKey(ed.public_key().public_bytes_raw(), ml.public_key().public_bytes_raw())
        self.recovery = XWing(hkdf(secret, b"candor/phrase/recovery/x-wing/1"))


# -- keys of epochs --------------------------------------------------------------------------


def place(account: bytes, vault: bytes | None, epoch: int) -> bytes:
    """Account, 1 or 0, vault or zeros, epoch (keystore.md, "Keys of epochs", 2)."""
    present = bytes([vault is not None])
    return account + present + (vault or bytes(16)) + epoch.to_bytes(4, "big")


def epoch_pair(key: bytes, where: bytes) -> XWing:
    """The pair whose public half stands in the record (keystore.md, "Keys of epochs", 3)."""
    return XWing(hkdf(key, b"candor/epoch/x-wing/1" + where))


def wrap_info(account: bytes, vault: bytes | None, epoch: int, device: bytes | None) -> bytes:
    """What a wrap is bound to (statements.md, "Epoch")."""
    return (
        label("candor epoch wrap")
        + account
        + bytes([vault is not None])
        + (vault or bytes(16))
        + bytes([device is not None])
        + (device or bytes(16))
        + epoch.to_bytes(4, "big")
    )


def run_info(account: bytes, vault: bytes, device: bytes, epoch: int, number: int) -> bytes:
    """What a run's keys are bound to (keystore.md, "Runs of write-only devices")."""
    return label("candor run key") + account + vault + device + epoch.to_bytes(4, "big") + number.to_bytes(4, "big")


def open_wrap(
    pair: XWing, account: bytes, vault: bytes | None, epoch: int, device: bytes | None, enc: bytes, wrapped: bytes
) -> bytes:
    """One wrap of an epoch's key (statements.md, "Epoch")."""
    if epoch > MAX_EPOCHS:
        raise Refused("a scope has at most 2,048 epochs")
    key = pair.hpke_open(enc, wrapped, wrap_info(account, vault, epoch, device))
    if len(key) != 32:
        raise Refused("an epoch's key has a wrong length")
    return key


def open_earlier(key: bytes, where: bytes, epoch: int, sealed: bytes) -> list[bytes]:
    """Keys of the epochs before `epoch` (keystore.md, "Keys of epochs", 4)."""
    if epoch == 1:
        return []
    joined = open_sealed(hkdf(key, b"candor/epoch/earlier/1" + where), sealed, where)
    if joined[:1] != b"\x01":
        raise Refused("the keys of earlier epochs have an unknown version")
    joined = joined[1:]
    if len(joined) != 32 * (epoch - 1):
        raise Refused("the keys of earlier epochs are not as many as there should be")
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def open_run(
    pair: XWing, account: bytes, vault: bytes, device: bytes, epoch: int, number: int, enc: bytes, sealed: bytes
) -> tuple[bytes, bytes]:
    """Key of a run, and key of its device's content ids (keystore.md, "Runs of write-only devices")."""
    both = pair.hpke_open(enc, sealed, run_info(account, vault, device, epoch, number))
    if len(both) != 64:
        raise Refused("a run's keys have a wrong length")
    return both[:32], both[32:]


def device_name(first_key: bytes, account: bytes, device: bytes, sealed: bytes) -> str:
    """A device's name, or an empty text (keystore.md, "What follows from …")."""
    info = b"candor/account/device-name/1" + account + device
    try:
        return open_sealed(hkdf(first_key, info), sealed, info).decode("utf-8")
    except (Refused, UnicodeDecodeError):
        return ""


def chunk_id_key(first_key: bytes, account: bytes, vault: bytes) -> bytes:
    """Key of the chunks' names (vault.md, "Names and keys")."""
    return hkdf(first_key, b"candor/vault/chunk-id" + account + vault + b"\x00\x00\x00\x01\x01")


def object_keys(key: bytes, salt: bytes, account: bytes, vault: bytes, epoch: int, kind: int) -> tuple[bytes, bytes]:
    """Key and commitment of a sealed object of format 1, suite 1 (vault.md, "Sealed objects")."""
    info = b"candor/vault/object" + account + vault + epoch.to_bytes(4, "big") + bytes([kind, 1, 1])
    okm = hkdf(key, info, 64, salt)
    return okm[:32], okm[32:]
