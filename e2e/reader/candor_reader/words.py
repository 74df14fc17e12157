"""The recovery phrase (keystore.md, "The recovery phrase"; BIP 39, English, 24 words)."""

from __future__ import annotations

import hashlib
from importlib import resources

from .errors import ReaderError

#: Longest text that is looked at, in bytes: 24 words of at most 8 letters, and room for odd spacing.
MAX_TEXT = 4096

#: SHA-256 of BIP 39's english.txt, which stands beside this file as it is in bitcoin/bips.
_LIST_SHA256 = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"


def word_list() -> list[str]:
    """The 2,048 words, in their order."""
    raw = resources.files(__package__).joinpath("english.txt").read_bytes()
    if hashlib.sha256(raw).hexdigest() != _LIST_SHA256:
        raise ReaderError("the word list beside this program is damaged")
    return raw.decode("ascii").split()


def entropy(phrase: str) -> bytes:
    """The 32 bytes behind 24 words; a wrong checksum is refused. No error holds a word."""
    if len(phrase.encode("utf-8")) > MAX_TEXT:
        raise ReaderError(f"a recovery phrase has at most {MAX_TEXT} bytes")
    words = ["".join(c.lower() if c.isascii() else c for c in word) for word in phrase.split()]
    if len(words) != 24:
        raise ReaderError(f"a recovery phrase has 24 words, and this one has {len(words)}")
    places = {word: place for place, word in enumerate(word_list())}
    number = 0
    for place, word in enumerate(words, 1):
        if word not in places:
            raise ReaderError(f"word {place} of the recovery phrase is not on the list")
        number = number << 11 | places[word]
    secret = (number >> 8).to_bytes(32, "big")
    if hashlib.sha256(secret).digest()[0] != number & 0xFF:
        raise ReaderError("the recovery phrase does not fit its checksum: a word is wrong or misplaced")
    return secret


def phrase(secret: bytes) -> str:
    """The 24 words of 32 bytes."""
    number = int.from_bytes(secret, "big") << 8 | hashlib.sha256(secret).digest()[0]
    words = word_list()
    return " ".join(words[number >> shift & 0x7FF] for shift in range(253, -1, -11))
