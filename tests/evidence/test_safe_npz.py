import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import MalformedError
from auditor.evidence import safe_npz
from auditor.evidence.safe_npz import ArrayRule, read_npz, write_npz

RULES = {"x": ArrayRule(descr="|u1", n_dims=2), "n": ArrayRule(descr="<i4", n_dims=1)}
X = np.arange(12, dtype=np.uint8).reshape(3, 4)
N = np.array([-1, 2, 70_000], dtype="<i4")


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), **options)
    return buffer.getvalue()


def header(text: str, data: bytes = b"", *, version: bytes = b"\x01\x00") -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(padded)) + padded + data


def container(members, *, method=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return buffer.getvalue()


def with_x(data: bytes) -> bytes:
    return container([("x.npy", data), ("n.npy", npy(N))])


def read(data: bytes):
    return read_npz(data, rules=RULES, what="t")


def shaped(shape: str, *, descr: str = "|u1", order: str = "False", data: bytes = X.tobytes()) -> bytes:
    return with_x(header(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}", data))


def test_numpy_reads_what_we_write_and_we_read_what_numpy_writes():
    ours = write_npz({"x": X, "n": N})
    theirs = io.BytesIO()
    np.savez(theirs, x=X, n=N)
    compressed = io.BytesIO()
    np.savez_compressed(compressed, x=X, n=N)
    with np.load(io.BytesIO(ours), allow_pickle=False) as loaded:
        assert set(loaded.files) == {"x", "n"}
        np.testing.assert_array_equal(loaded["x"], X)
    for data in (ours, theirs.getvalue(), compressed.getvalue()):
        found = read(data)
        np.testing.assert_array_equal(found["x"], X)
        np.testing.assert_array_equal(found["n"], N)
        assert found["x"].dtype == np.uint8
        assert found["n"].dtype == np.int32
        assert not found["x"].flags.writeable


def test_bytes_depend_only_on_content():
    assert write_npz({"x": X, "n": N}) == write_npz({"x": np.asfortranarray(X), "n": N.copy()})


def test_an_object_array_is_refused_and_never_unpickled():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    array = np.empty((1, 1), dtype=object)
    array[0, 0] = Bomb()
    with pytest.raises(MalformedError, match="type is not"):
        read(with_x(npy(array, allow_pickle=True)))


ZIP_GOOD = container([("x.npy", npy(X)), ("n.npy", npy(N))])


def encrypted() -> bytes:
    data = bytearray(ZIP_GOOD)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(signature) + offset
        data[place] |= 1
    return bytes(data)


def forged_member_size() -> bytes:
    data = bytearray(ZIP_GOOD)
    place = data.find(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)
    return bytes(data)


def unknown_compression() -> bytes:
    return container([("x.npy", npy(X)), ("n.npy", npy(N))], method=zipfile.ZIP_LZMA)


def duplicate() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", npy(X))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy(X))
        archive.writestr("n.npy", npy(N))
    return buffer.getvalue()


def ratio_bomb() -> bytes:
    members = [("x.npy", npy(np.zeros((1000, 1000), np.uint8))), ("n.npy", npy(N))]
    return container(members, method=zipfile.ZIP_DEFLATED)


def header_that_is_code() -> bytes:
    return with_x(header("{'descr': '|u1', 'fortran_order': False, 'shape': (__import__('os'),), }"))


def header_in_another_order() -> bytes:
    return with_x(header("{'shape': (3, 4), 'descr': '|u1', 'fortran_order': False, }", X.tobytes()))


DEFECTS = {
    "empty": (lambda: b"", "container"),
    "not a zip": (lambda: b"junk" * 100, "container"),
    "truncated": (lambda: ZIP_GOOD[:-30], "container"),
    "pickle": (lambda: b"\x80\x04K\x01.", "container"),
    "bare npy": (lambda: npy(X), "container"),
    "unknown member": (lambda: container([("x.npy", npy(X)), ("n.npy", npy(N)), ("y.npy", npy(N))]), "unknown member"),
    "member without suffix": (lambda: container([("x", npy(X)), ("n.npy", npy(N))]), "unknown member"),
    "missing member": (lambda: container([("x.npy", npy(X))]), "missing"),
    "duplicate member": (duplicate, "twice"),
    "folder": (lambda: container([("x.npy/", b""), ("n.npy", npy(N))]), "folder"),
    "path": (lambda: container([("../x.npy", npy(X)), ("n.npy", npy(N))]), "path"),
    "absolute path": (lambda: container([("/x.npy", npy(X)), ("n.npy", npy(N))]), "path"),
    "encrypted flag": (encrypted, "encrypted"),
    "other compression": (unknown_compression, "compression"),
    "too many members": (lambda: container([(f"{i}.npy", b"") for i in range(65)]), "more than 64"),
    "forged member size": (forged_member_size, "t: "),
    "ratio bomb": (ratio_bomb, "100 times"),
    "forged shape 1e13": (lambda: shaped("(10000000000000, 1)"), "shape does not fit"),
    "forged shape beyond 64 bits": (lambda: shaped("(99999999999999999999, 99999999999999999999)"), "shape does not"),
    "zero times huge": (lambda: shaped("(0, 99999999999999999999)", data=b""), "empty"),
    "too few bytes": (lambda: shaped("(3, 4)", data=b"123"), "shape does not fit"),
    "too many bytes": (lambda: shaped("(3, 3)"), "shape does not fit"),
    "negative side": (lambda: shaped("(-3, -4)"), "header"),
    "leading zero": (lambda: shaped("(03, 4)"), "shape"),
    "Fortran order": (lambda: with_x(npy(np.asfortranarray(X))), "C order"),
    "big-endian": (
        lambda: container([("x.npy", npy(X)), ("n.npy", npy(N.astype(">i4")))]),
        "type is not <i4",
    ),
    "floats": (lambda: with_x(npy(X.astype(np.float64))), "type is not"),
    "structured": (lambda: with_x(npy(np.zeros((3, 4), dtype=[("a", "u1")]))), "header"),
    "wrong dimensions": (lambda: with_x(npy(X.reshape(12))), "2 dimensions"),
    "many dimensions": (lambda: with_x(npy(X.reshape(1, 1, 1, 1, 1, 3, 4))), "2 dimensions"),
    "format 2.0": (lambda: with_x(header("{}", version=b"\x02\x00")), "npy format 1.0"),
    "header is code": (header_that_is_code, "header"),
    "header in another order": (header_in_another_order, "header"),
    "huge header": (lambda: with_x(b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535), "too long"),
    "header longer than the member": (lambda: with_x(b"\x93NUMPY\x01\x00\x76\x00{"), "too long"),
    "no magic": (lambda: with_x(b"x" * 200), "npy format"),
    "empty member": (lambda: with_x(b""), "npy format"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_every_defect_is_refused(name):
    make, message = DEFECTS[name]
    with pytest.raises(MalformedError, match=message):
        read(make())


def test_limits_on_sizes(monkeypatch):
    monkeypatch.setattr(safe_npz, "MAX_FILE_BYTES", len(ZIP_GOOD) - 1)
    with pytest.raises(MalformedError, match="larger than"):
        read(ZIP_GOOD)
    monkeypatch.undo()
    monkeypatch.setattr(safe_npz, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(MalformedError, match="unpacks to more"):
        read(ZIP_GOOD)


@given(st.integers(0, len(ZIP_GOOD) - 1))
@settings(max_examples=150)
def test_truncations_raise_only_our_error(length):
    with pytest.raises(MalformedError):
        read(ZIP_GOOD[:length])


def test_a_flipped_byte_gives_our_error_or_a_well_formed_answer():
    for place in range(len(ZIP_GOOD)):
        broken = bytearray(ZIP_GOOD)
        broken[place] ^= 1 << (place % 8)
        try:
            found = read(bytes(broken))
        except MalformedError:
            continue
        # Container fields that nobody reads may differ; the arrays may not (their CRC is checked).
        np.testing.assert_array_equal(found["x"], X)
        np.testing.assert_array_equal(found["n"], N)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_arbitrary_headers_raise_only_our_error(text):
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
    with pytest.raises(MalformedError):
        read(with_x(data))
