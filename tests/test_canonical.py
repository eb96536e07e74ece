import json
import math

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from auditor.canonical import (
    Fields,
    canonical_bytes,
    decimal_string,
    parse_canonical_object,
    parse_json,
    parse_object,
)
from auditor.errors import MalformedError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_write_then_read_is_identity(value):
    assert parse_json(canonical_bytes(value), what="t") == value


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_canonical_bytes_agree_with_the_standard_library(value):
    assert json.loads(canonical_bytes(value)) == value


@given(
    st.dictionaries(st.text(), json_values, max_size=4)
    | st.dictionaries(st.text(st.characters(max_codepoint=127)), st.text() | st.lists(st.text()), max_size=4)
)
def test_the_fast_spelling_is_that_of_the_reference_implementation(value):
    assert canonical_bytes(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [{"a": 1.0}, {"a": 2**53}, {"a": [-(2**53)]}, {1: "a"}, {"a": {None: 1}}, {"a": b""}])
def test_what_json_does_not_know_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011
        canonical_bytes(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"a":1.5}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e3}',
        b'{"a":9007199254740992}',
        b'{"a":' + b"9" * 400 + b"}",
        b"\xff",
        b"",
        b"{",
        b'"text"',
        b"[" * 100_000,
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
    ],
)
def test_defects_raise_our_error_only(data):
    with pytest.raises(MalformedError):
        parse_object(data, what="t")


def test_size_limit_is_enforced():
    with pytest.raises(MalformedError, match="exceed"):
        parse_json(b'"aaaaaaaaaa"', what="t", max_bytes=5)


@pytest.mark.parametrize("data", [b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":"\\u0041"}', b'{"a":1}\n\n', b'{"a":-0}'])
def test_non_canonical_spelling_is_refused(data):
    with pytest.raises(MalformedError):
        parse_canonical_object(data, what="t")


@given(st.dictionaries(st.text(), json_values, max_size=4), st.booleans(), st.booleans())
def test_exactly_the_canonical_spelling_is_accepted(value, ascii_only, sort_keys):
    assert parse_canonical_object(canonical_bytes(value), what="t") == value
    other = json.dumps(value, ensure_ascii=ascii_only, sort_keys=sort_keys, separators=(",", ":")).encode()
    if other != canonical_bytes(value):
        with pytest.raises(MalformedError):
            parse_canonical_object(other, what="t")


def test_one_final_newline_is_accepted():
    assert parse_canonical_object(b'{"a":1}\n', what="t") == {"a": 1}


def test_floats_are_never_signed():
    with pytest.raises(ValueError, match="decimal string"):
        canonical_bytes({"a": [1.0]})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_strings_read_back_exactly(value):
    text = decimal_string(value)
    assert float(text) == value
    assert Fields({"v": text}, what="t").decimal("v") == value


def test_decimal_string_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="finite"):
        decimal_string(math.inf)


def test_fields_refuse_missing_unknown_and_wrong():
    fields = Fields({"a": 1, "b": True, "c": "00ff", "d": "1.50"}, what="t")
    with pytest.raises(MalformedError, match="missing"):
        fields.text("nope")
    with pytest.raises(MalformedError, match="text"):
        fields.text("a")
    with pytest.raises(MalformedError, match="integer"):
        fields.integer("b")
    assert fields.hex("c", n_bytes=2) == "00ff"
    with pytest.raises(MalformedError, match="decimal"):
        fields.decimal("d")
    left = Fields({"a": 1}, what="t")
    with pytest.raises(MalformedError, match="unknown field 'a'"):
        left.finish()
