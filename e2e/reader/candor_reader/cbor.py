"""Strict deterministic CBOR (README.md, "Encoding"; RFC 8949 section 4.2.1).

A value is an int, bytes, str, bool, list, or a dict with unsigned integers as keys. Every other
item and every other spelling is refused while it is read, so nothing has to be encoded again
to be compared: lengths and integers have to be in their shortest form, keys have to ascend.

A few bytes of CBOR can stand for many Python objects. So the number of items of one value is
bounded, too: far above what a full manifest has, and far below what would fill the memory.
"""

from __future__ import annotations

from typing import Any, Iterator, TypeAlias

from .errors import Refused

Value: TypeAlias = Any

#: Deepest nesting of arrays and maps; the structures of the formats have less than half of it.
MAX_DEPTH = 16
#: Most items of one value. The largest one that is allowed, a full manifest, has about 180,000.
MAX_ITEMS = 1 << 19
_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)


class Cursor:
    """A place in some bytes, from which items are read one after another."""

    __slots__ = ("data", "at", "end", "_items_left")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.end = len(data)
        self._items_left = MAX_ITEMS

    def _head(self) -> tuple[int, int]:
        """Major type and argument of the next item, in its shortest form."""
        if self.at >= self.end:
            raise Refused("CBOR ends too early")
        first = self.data[self.at]
        self.at += 1
        major, info = first >> 5, first & 0x1F
        if info < 24:
            return major, info
        if info > 27:
            raise Refused("CBOR of indefinite length, or a reserved item")
        if major == _SIMPLE:
            raise Refused("CBOR has a float or an unknown simple value")
        size = 1 << (info - 24)
        if self.end - self.at < size:
            raise Refused("CBOR ends too early")
        argument = int.from_bytes(self.data[self.at : self.at + size], "big")
        self.at += size
        if argument < (24, 1 << 8, 1 << 16, 1 << 32)[info - 24]:
            raise Refused("CBOR has a number that is not in its shortest form")
        return major, argument

    def uint(self) -> int:
        """An unsigned integer."""
        major, number = self._head()
        if major != _UINT:
            raise Refused("CBOR has something else in the place of a number")
        return number

    def array(self, limit: int | None = None) -> int:
        """The number of items of an array that begins here; its items follow."""
        major, count = self._head()
        if major != _ARRAY:
            raise Refused("CBOR has something else in the place of an array")
        if count > self.end - self.at or (limit is not None and count > limit):
            raise Refused("CBOR has an array with more items than there may be")
        return count

    def map(self) -> int:
        """The number of pairs of a map that begins here; its keys and values follow."""
        major, count = self._head()
        if major != _MAP:
            raise Refused("CBOR has something else in the place of a map")
        if 2 * count > self.end - self.at:
            raise Refused("CBOR has a map with more fields than there are bytes")
        return count

    def value(self) -> Value:
        """The next item, whole."""
        self._items_left = MAX_ITEMS
        return self._value(MAX_DEPTH)

    def _value(self, depth: int) -> Value:
        self._items_left -= 1
        if self._items_left < 0:
            raise Refused("CBOR has more items than any structure")
        major, argument = self._head()
        if major == _UINT:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major in (_BYTES, _TEXT):
            if argument > self.end - self.at:
                raise Refused("CBOR ends too early")
            raw = self.data[self.at : self.at + argument]
            self.at += argument
            if major == _BYTES:
                return bytes(raw)
            try:
                return str(raw, "utf-8")
            except UnicodeDecodeError:
                raise Refused("CBOR has text that is not UTF-8") from None
        if major == _ARRAY:
            if depth == 0 or argument > self.end - self.at:
                raise Refused("CBOR is nested too deep, or ends too early")
            return [self._value(depth - 1) for _ in range(argument)]
        if major == _MAP:
            if depth == 0 or 2 * argument > self.end - self.at:
                raise Refused("CBOR is nested too deep, or ends too early")
            result: dict[int, Value] = {}
            last = -1
            for _ in range(argument):
                kind, key = self._head()
                if kind != _UINT or key <= last:
                    raise Refused("CBOR has a map whose keys are not ascending numbers")
                last = key
                result[key] = self._value(depth - 1)
            return result
        if major == _SIMPLE and argument in (20, 21):
            return argument == 21
        raise Refused("CBOR has a tag, a null or another item that no structure has")

    def finish(self) -> None:
        """Refuse anything that is left."""
        if self.at != self.end:
            raise Refused("CBOR has bytes after its end")


def decode(data: bytes, limit: int | None = None) -> Value:
    """The one value that `data` holds; `limit` is the most bytes that its type may have."""
    if limit is not None and len(data) > limit:
        raise Refused("a structure is longer than it may be")
    cursor = Cursor(data)
    result = cursor.value()
    cursor.finish()
    return result


def encode(value: Value) -> bytes:
    """The one spelling of a value."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _encode_head(_UINT, value) if value >= 0 else _encode_head(_NEGATIVE, -1 - value)
    if isinstance(value, bytes):
        return _encode_head(_BYTES, len(value)) + value
    if isinstance(value, str):
        raw = value.encode("utf-8")
        return _encode_head(_TEXT, len(raw)) + raw
    if isinstance(value, list):
        return _encode_head(_ARRAY, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        pairs = (encode(key) + encode(value[key]) for key in sorted(value))
        return _encode_head(_MAP, len(value)) + b"".join(pairs)
    raise TypeError(f"no CBOR for {type(value).__name__}")


def _encode_head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    raise Refused("a number has more than 64 bits")


class Fields:
    """A map whose fields are taken out one by one; `done` refuses those that nobody took."""

    def __init__(self, value: Value, what: str) -> None:
        if not isinstance(value, dict):
            raise Refused(f"{what}: not a map")
        self._left = dict(value)
        self.what = what

    def _take(self, key: int) -> Value:
        if key not in self._left:
            raise Refused(f"{self.what}: field {key} is missing")
        return self._left.pop(key)

    def has(self, key: int) -> bool:
        return key in self._left

    def any(self, key: int) -> Value:
        """A field as it is; the caller checks it."""
        return self._take(key)

    def version(self) -> None:
        """Key 0, which is 1 in all structures that are read here."""
        value = self.uint(0)
        if value != 1:
            raise Refused(f"{self.what}: version {value} is not known")

    def uint(self, key: int, most: int = 2**64 - 1, least: int = 0) -> int:
        """An integer between two bounds, unsigned and of 64 bits if none are given."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Refused(f"{self.what}: field {key} is not a number that it may be")
        return value

    def signed(self, key: int) -> int:
        """A signed integer of 64 bits."""
        return self.uint(key, least=-(2**63), most=2**63 - 1)

    def bool(self, key: int) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise Refused(f"{self.what}: field {key} is neither true nor false")
        return value

    def bytes(self, key: int, length: int | None = None, most: int | None = None) -> bytes:
        value = self._take(key)
        if not isinstance(value, bytes):
            raise Refused(f"{self.what}: field {key} is not a byte string")
        if (length is not None and len(value) != length) or (most is not None and len(value) > most):
            raise Refused(f"{self.what}: field {key} has a wrong length")
        return value

    def text(self, key: int, most: int | None = None) -> str:
        """A text: of 1 to `most` bytes, or of any length if there is no limit of its own."""
        value = self._take(key)
        if not isinstance(value, str):
            raise Refused(f"{self.what}: field {key} is not a text")
        if most is not None and not 1 <= len(value.encode("utf-8")) <= most:
            raise Refused(f"{self.what}: field {key} is not a text of 1 to {most} bytes")
        return value

    def list(self, key: int, most: int, least: int = 0) -> list[Value]:
        """A list whose number of items is between two bounds."""
        value = self._take(key)
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise Refused(f"{self.what}: field {key} is not a list of {least} to {most} items")
        return value

    def maps(self, key: int, most: int = MAX_ITEMS, least: int = 0) -> Iterator[Fields]:
        """The maps of a list, one after another; fields that the caller did not take are refused."""
        for item in self.list(key, most, least):
            fields = Fields(item, self.what)
            yield fields
            fields.done()

    def map(self, key: int) -> Fields:
        """A map inside this one; the caller calls its `done`."""
        return Fields(self._take(key), f"{self.what}, field {key}")

    def done(self) -> None:
        """Refuse fields that are not known."""
        if self._left:
            raise Refused(f"{self.what}: field {min(self._left)} is not known")
