import gzip
import hashlib
import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

from auditor import datasets
from auditor.errors import MalformedError, MissingPartError, UsageError


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def test_digits_are_the_published_ones_on_the_uint8_grid():
    dataset = datasets.load("digits")
    assert dataset.spec.shape == (1, 8, 8)
    assert [len(p) for p in (dataset.train, dataset.carriers, dataset.test)] == [1000, 250, 547]
    together = np.concatenate([dataset.train.inputs, dataset.carriers.inputs, dataset.test.inputs])
    assert together.dtype == np.uint8
    original = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in original)


def test_parts_do_not_overlap_and_the_split_is_fixed():
    one, two = datasets.load("digits"), datasets.load("digits")
    assert np.array_equal(one.carriers.inputs, two.carriers.inputs)
    train = {i.tobytes() for i in one.train.inputs}
    # Digits holds no duplicate images, so shared bytes would mean a shared row.
    assert not train & {i.tobytes() for i in one.carriers.inputs}
    assert not train & {i.tobytes() for i in one.test.inputs}
    assert (
        hashlib.sha256(one.carriers.labels.tobytes()).digest() == hashlib.sha256(two.carriers.labels.tobytes()).digest()
    )


def test_halves_share_no_row():
    part = datasets.load("digits").test
    first, second = part.halves()
    assert len(first) + len(second) == len(part)
    assert not {i.tobytes() for i in first.inputs} & {i.tobytes() for i in second.inputs}


@pytest.mark.parametrize("compress", [False, True])
def test_idx_round_trip(compress):
    data = gzip.compress(idx(IMAGES)) if compress else idx(IMAGES)
    assert np.array_equal(datasets.read_idx(data, what="x"), IMAGES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x09\x01" + struct.pack(">I", 1) + b"a",
        b"\1\0\x08\x01" + struct.pack(">I", 1) + b"a",
        b"\0\0\x08\x00",
        b"\0\0\x08\x05" + bytes(20),
        b"\0\0\x08\x03" + struct.pack(">I", 1),
        idx(IMAGES)[:-1],
        idx(IMAGES) + b"x",
        b"\0\0\x08\x02" + struct.pack(">II", 2**32 - 1, 2**32 - 1),
        gzip.compress(idx(IMAGES))[:-4],
        gzip.compress(idx(IMAGES)) + b"tail",
        b"\x1f\x8bnonsense",
    ],
    ids=[
        "empty",
        "three-bytes",
        "signed-type",
        "bad-magic",
        "no-dimensions",
        "five-dimensions",
        "cut-header",
        "cut-data",
        "long-data",
        "huge-shape",
        "cut-gzip",
        "gzip-tail",
        "gzip-nonsense",
    ],
)
def test_idx_defects_are_malformed(data):
    with pytest.raises(MalformedError):
        datasets.read_idx(data, what="x")


def write_pair(folder, *, images, labels, prefix="train"):
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))


def test_pair_is_read_with_and_without_compression(tmp_path):
    write_pair(tmp_path, images=IMAGES, labels=np.array([3, 9]))
    part = datasets.read_idx_pair(tmp_path, prefix="train", n_classes=10)
    assert part.inputs.shape == (2, 1, 3, 3)
    assert part.labels.tolist() == [3, 9]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES, np.array([1])),
        (IMAGES, np.array([1, 10])),
        (IMAGES[0], np.array([1, 2, 3])),
        (IMAGES[:0], IMAGES[0, :0]),
    ],
    ids=["count", "label-out-of-range", "two-dimensional-images", "empty"],
)
def test_pairs_that_do_not_fit_are_malformed(tmp_path, images, labels):
    write_pair(tmp_path, images=images, labels=labels)
    with pytest.raises(MalformedError):
        datasets.read_idx_pair(tmp_path, prefix="train", n_classes=10)


def test_missing_data_says_where_to_get_it_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDITOR_DATA", str(tmp_path))
    with pytest.raises(MissingPartError, match=r"dataset-fashion-mnist.*fashion-mnist.*AUDITOR_DATA"):
        datasets.load("fashion-mnist")
    (tmp_path / "fashion-mnist").mkdir()
    with pytest.raises(MissingPartError, match="train-images"):
        datasets.load("fashion-mnist")


def test_fashion_mnist_of_another_size_is_malformed(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDITOR_DATA", str(tmp_path))
    folder = tmp_path / "fashion-mnist"
    write_pair(folder, images=IMAGES, labels=np.array([1, 2]))
    write_pair(folder, images=IMAGES, labels=np.array([1, 2]), prefix="t10k")
    with pytest.raises(MalformedError, match="60000"):
        datasets.load("fashion-mnist")


def test_unknown_name_is_a_usage_error():
    with pytest.raises(UsageError, match="digits"):
        datasets.load("imagenet")
