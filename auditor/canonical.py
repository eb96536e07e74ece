"""Bytes ⇄ JSON values, strictly: what is signed is canonical (RFC 8785), what is read is limited.

Numbers that are signed are integers or decimal strings; binary floats are refused in both directions, so that
two implementations can never disagree about a digit.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import rfc8785

from auditor.errors import MalformedError

_HARMLESS = frozenset({str, bool, type(None)})
"""Types of which every value can be signed."""

JsonValue = str | int | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
"""A JSON value without binary floats."""

MAX_JSON_BYTES = 256 * 1024 * 1024
MAX_JSON_DEPTH = 32

_COMPACT = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
"""Without floats, and with names in ASCII, the C encoder's compact spelling is the canonical one."""


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def canonical_bytes(value: JsonValue) -> bytes:
    """Return the RFC 8785 serialisation of ``value``.

    Raises:
        ValueError: ``value`` holds a float or something JSON does not know; a bug of the caller.
    """
    if _refuse_unsigned(value):
        try:
            return _COMPACT.encode(value).encode()
        except (TypeError, UnicodeEncodeError):
            # Only the strict serialiser tells what cannot be written.
            return rfc8785.dumps(value)
    return rfc8785.dumps(value)


def parse_json(data: bytes, *, what: str, max_bytes: int = MAX_JSON_BYTES) -> JsonValue:
    """Parse outside bytes as JSON; duplicate keys, floats, NaN, deep nesting and excess size are refused.

    Args:
        data: UTF-8 bytes.
        what: a name for error messages, such as ``"k.seal.json"``.
        max_bytes: the largest accepted size.

    Raises:
        MalformedError: for every defect of ``data``.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"{what}: {len(data)} bytes exceed the limit of {max_bytes}")
    try:
        value: JsonValue = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_float=_no_float,
            parse_constant=_no_float,
            parse_int=_small_int,
        )
        if b"\\u" in data:
            # An escaped lone surrogate parses, yet no UTF-8 text holds it: it could never be written again.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedError(f"{what}: not acceptable JSON ({_reason(error)})") from error
    _check_depth(value, what=what)
    return value


def parse_object(data: bytes, *, what: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, JsonValue]:
    """Parse outside bytes that must be a JSON object; see :func:`parse_json`."""
    value = parse_json(data, what=what, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise MalformedError(f"{what}: expected a JSON object")
    return value


def parse_canonical_object(data: bytes, *, what: str) -> dict[str, JsonValue]:
    """Parse an object whose bytes must be exactly its canonical serialisation, with or without one final newline.

    Every byte is then meaningful: white space, escapes and key order cannot be altered unnoticed.
    """
    value = parse_object(data, what=what)
    plain = data.removesuffix(b"\n")
    if plain.isascii() and plain == _COMPACT.encode(value).encode():
        return value
    if plain != canonical_bytes(value):
        raise MalformedError(f"{what}: not in canonical form")
    return value


def decimal_string(value: float) -> str:
    """Return a finite float as the shortest decimal string that reads back as the same float."""
    if not math.isfinite(value):
        raise ValueError("only finite numbers can be written as decimal strings")
    return repr(float(value))


def decimal_strings(values: Sequence[float]) -> list[str]:
    """Return many numbers as :func:`decimal_string` would write each."""
    if not all(map(math.isfinite, values)):
        raise ValueError("only finite numbers can be written as decimal strings")
    return [repr(value) if type(value) is float else repr(float(value)) for value in values]


class Fields:
    """Typed, complete reading of one JSON object: every field is asked for, unknown ones are refused.

    Usage::

        fields = Fields(obj, what="k.seal.json")
        n = fields.integer("n", low=1)
        fields.finish()
    """

    def __init__(self, value: JsonValue, *, what: str) -> None:
        if not isinstance(value, Mapping):
            raise MalformedError(f"{what}: expected a JSON object")
        self._rest = dict(value)
        self._what = what

    def _take(self, name: str) -> JsonValue:
        if name not in self._rest:
            raise MalformedError(f"{self._what}: field {name!r} is missing")
        return self._rest.pop(name)

    def raw(self, name: str) -> JsonValue:
        """Return the field as it is."""
        return self._take(name)

    def has(self, name: str) -> bool:
        """Return whether the object holds the field and it was not read yet."""
        return name in self._rest

    def text(self, name: str, *, max_length: int = 4096) -> str:
        """Return a string field."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > max_length:
            raise MalformedError(f"{self._what}: field {name!r} must be text of at most {max_length} characters")
        return value

    def optional_text(self, name: str, *, max_length: int = 4096) -> str | None:
        """Return a string field that may be null."""
        if self._rest.get(name, "") is None:
            self._take(name)
            return None
        return self.text(name, max_length=max_length)

    def hex(self, name: str, *, n_bytes: int | None = None) -> str:
        """Return a lower-case hexadecimal field, of ``n_bytes`` bytes if given."""
        value = self.text(name, max_length=1 << 20)
        if len(value) % 2 or any(c not in "0123456789abcdef" for c in value):
            raise MalformedError(f"{self._what}: field {name!r} must be lower-case hex")
        if n_bytes is not None and len(value) != 2 * n_bytes:
            raise MalformedError(f"{self._what}: field {name!r} must hold {n_bytes} bytes")
        return value

    def integer(self, name: str, *, low: int = 0, high: int = 2**53 - 1) -> int:
        """Return an integer field inside ``[low, high]``."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise MalformedError(f"{self._what}: field {name!r} must be an integer in [{low}, {high}]")
        return value

    def boolean(self, name: str) -> bool:
        """Return a boolean field."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise MalformedError(f"{self._what}: field {name!r} must be true or false")
        return value

    def decimal(self, name: str, *, low: float = -math.inf, high: float = math.inf) -> float:
        """Return a decimal-string field as a float inside ``[low, high]``; its canonical spelling is demanded."""
        text = self.text(name, max_length=64)
        try:
            value = float(text)
        except ValueError as error:
            raise MalformedError(f"{self._what}: field {name!r} must be a decimal string") from error
        if not math.isfinite(value) or repr(value) != text or not low <= value <= high:
            raise MalformedError(f"{self._what}: field {name!r} must be a decimal string in [{low}, {high}]")
        return value

    def items(self, name: str, *, max_items: int = 10_000_000) -> list[JsonValue]:
        """Return an array field."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) > max_items:
            raise MalformedError(f"{self._what}: field {name!r} must be an array of at most {max_items} items")
        return value

    def texts(self, name: str, *, max_items: int = 100_000) -> tuple[str, ...]:
        """Return an array of strings."""
        values = self.items(name, max_items=max_items)
        if not all(isinstance(v, str) for v in values):
            raise MalformedError(f"{self._what}: field {name!r} must be an array of text")
        return tuple(str(v) for v in values)

    def object(self, name: str) -> "Fields":
        """Return an object field as another reader."""
        return Fields(self._take(name), what=f"{self._what}.{name}")

    def finish(self) -> None:
        """Refuse fields nobody asked for."""
        if self._rest:
            raise MalformedError(f"{self._what}: unknown field {sorted(self._rest)[0]!r}")


def _unique_pairs(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError("duplicate key")
        found[key] = value
    return found


def _no_float(text: str) -> float:
    raise ValueError("binary floating-point number")


def _small_int(text: str) -> int:
    # RFC 8785 serialises through IEEE doubles: larger integers would not survive the round trip.
    if len(text) > 17 or abs(int(text)) > 2**53 - 1:
        raise ValueError("integer too large")
    return int(text)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at byte {error.pos}"
    return str(error) if type(error) is ValueError else type(error).__name__


def _check_depth(value: JsonValue, *, what: str) -> None:
    level: list[JsonValue] = [value]
    for _ in range(MAX_JSON_DEPTH):
        deeper: list[JsonValue] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return
        level = deeper
    raise MalformedError(f"{what}: nested deeper than {MAX_JSON_DEPTH} levels")


def _refuse_unsigned(value: JsonValue) -> bool:
    """Raise ValueError for what is never signed; return whether all names are ASCII, which sort in one way only."""
    plain = True
    waiting: list[JsonValue] = [value]
    while waiting:
        item = waiting.pop()
        # Exact types come first: what is written consists of them, and an abstract type takes ten times as long to ask.
        kind = type(item)
        if kind in _HARMLESS:
            continue
        if isinstance(item, int):
            if not -(2**53) < item < 2**53:
                raise ValueError("integer too large")
        elif isinstance(item, float):
            raise ValueError("binary floats are not signed; write a decimal string")
        elif isinstance(item, (dict, Mapping)):
            for name in item:
                if type(name) is not str and not isinstance(name, str):
                    raise ValueError("names in objects are text")
                plain = plain and name.isascii()
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, Sequence)) and not isinstance(item, str):
            waiting.extend(() if _HARMLESS.issuperset(map(type, item)) else item)
    return plain
