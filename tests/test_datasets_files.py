"""MNIST, CIFAR in the binary version, and npz files: small generated files in the real formats."""

import struct

import numpy as np
import pytest

from auditor import datasets
from auditor.errors import MalformedError, MissingPartError

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDITOR_DATA", str(tmp_path))
    return tmp_path


def record(labels, image):
    # Written pixel by pixel from the format's description: planes of red, green and blue, row by row.
    planes = b"".join(struct.pack("B", image[y][x][c]) for c in range(3) for y in range(32) for x in range(32))
    return bytes(labels) + planes


def write_cifar10(folder, per_file=8):
    folder.mkdir()
    images = GENERATOR.integers(0, 256, (6 * per_file, 32, 32, 3), dtype=np.uint8)
    labels = [i % 10 for i in range(6 * per_file)]
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for number, name in enumerate(files):
        rows = range(number * per_file, (number + 1) * per_file)
        (folder / name).write_bytes(b"".join(record([labels[i]], images[i]) for i in rows))
    return images, labels


def test_cifar10_has_every_image_once_under_its_label(home):
    images, labels = write_cifar10(home / "cifar10")
    dataset = datasets.load("cifar10")
    assert dataset.spec.shape == (3, 32, 32)
    assert dataset.classes[3] == "cat"
    assert [len(p) for p in (dataset.train, dataset.carriers, dataset.test)] == [36, 4, 8]
    found = {
        image.transpose(1, 2, 0).tobytes(): int(label)
        for part in (dataset.train, dataset.carriers, dataset.test)
        for image, label in zip(part.inputs, part.labels, strict=True)
    }
    assert found == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}


def test_cifar100_takes_the_fine_label(home):
    folder = home / "cifar100"
    folder.mkdir()
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    for name, n in (("train.bin", 1200), ("test.bin", 3)):
        (folder / name).write_bytes(b"".join(record([i % 20, i % 100], image) for i in range(n)))
    (folder / "fine_label_names.txt").write_text("\n".join(f"name{i}" for i in range(100)) + "\n")
    dataset = datasets.load("cifar100")
    assert dataset.classes[99] == "name99"
    assert sorted(set(dataset.train.labels.tolist())) == list(range(100))
    (folder / "fine_label_names.txt").write_text("one\ntwo\n")
    with pytest.raises(MalformedError, match="100 different names"):
        datasets.load("cifar100")


def test_damaged_cifar_files(home):
    write_cifar10(home / "cifar10")
    path = home / "cifar10" / "data_batch_2.bin"
    whole = path.read_bytes()
    for data, what in ((whole[:-1], "whole number of records"), (b"", "records"), (b"\x0a" + whole[1:], "label 10")):
        path.write_bytes(data)
        with pytest.raises(MalformedError, match=what):
            datasets.load("cifar10")
    path.unlink()
    with pytest.raises(MissingPartError, match=r"data_batch_2\.bin"):
        datasets.load("cifar10")


def test_a_class_without_images_is_named(home):
    write_cifar10(home / "cifar10")
    for path in (home / "cifar10").glob("data_batch_*.bin"):
        data = bytearray(path.read_bytes())
        for start in range(0, len(data), 3073):
            data[start] = 0 if data[start] == 3 else data[start]
        path.write_bytes(bytes(data))
    with pytest.raises(MalformedError, match="class 'cat' has no training images"):
        datasets.load("cifar10")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_data_says_where_to_get_and_to_put_it(home, monkeypatch, name):
    with pytest.raises(MissingPartError, match=rf"(?s)(npm|Toronto).*{name}.*AUDITOR_DATA"):
        datasets.load(name)
    monkeypatch.delenv("AUDITOR_DATA")
    with pytest.raises(MissingPartError, match=rf"\$AUDITOR_DATA/{name}"):
        datasets.load(name)


def test_mnist_is_read_from_idx_files(home):
    folder = home / "mnist"
    folder.mkdir()
    for prefix, n in (("train", 200), ("t10k", 10)):
        images = GENERATOR.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + images.tobytes()
        )
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, n) + labels.tobytes())
    dataset = datasets.load("mnist")
    assert [len(p) for p in (dataset.train, dataset.carriers, dataset.test)] == [180, 20, 10]


X = GENERATOR.integers(0, 256, (40, 5, 6), dtype=np.uint8)
Y = np.arange(40) % 4


def load_npz(path, **arrays):
    np.savez(path, **arrays)
    return datasets.load(f"npz:{path}")


def test_npz_of_grey_and_colour_images(tmp_path):
    dataset = load_npz(tmp_path / "mine.npz", x=X, y=Y)
    assert dataset.name == "npz:mine.npz"
    assert dataset.spec.shape == (1, 5, 6)
    assert dataset.classes == ("0", "1", "2", "3")
    assert [len(p) for p in (dataset.train, dataset.carriers, dataset.test)] == [32, 4, 4]
    colour = np.stack([X, X, X], axis=1)
    names = np.array(["a", "b", "c", "d"])
    dataset = load_npz(
        tmp_path / "c.npz", x=colour, y=Y.astype(np.uint8), x_test=colour[:7], y_test=Y[:7], classes=names
    )
    assert dataset.spec.shape == (3, 5, 6)
    assert dataset.classes == ("a", "b", "c", "d")
    assert len(dataset.test) == 7


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X},
        {"x": X.astype(np.float32), "y": Y},
        {"x": X[0], "y": Y},
        {"x": X, "y": Y[:-1]},
        {"x": X, "y": Y - 1},
        {"x": X, "y": Y.astype(float)},
        {"x": X, "y": Y * 0},
        {"x": X, "y": Y * 2},
        {"x": X, "y": Y, "extra": Y},
        {"x": X, "y": Y, "x_test": X},
        {"x": X, "y": Y, "x_test": X[:, :4], "y_test": Y},
        {"x": X, "y": Y, "x_test": X, "y_test": Y + 1},
        {"x": X, "y": Y, "classes": np.array(["a", "b"])},
        {"x": X, "y": Y, "classes": np.arange(4)},
        {"x": X, "y": np.array([{}] * 40, dtype=object)},
        {"x": X[:5], "y": Y[:5]},
        {"x": X.transpose(1, 0, 2)[:, :, None].repeat(2, 2), "y": Y[:5]},
    ],
)
def test_npz_defects_are_malformed(tmp_path, arrays):
    with pytest.raises(MalformedError):
        load_npz(tmp_path / "bad.npz", **arrays)


def test_npz_that_is_not_there_or_not_one(tmp_path):
    with pytest.raises(MissingPartError, match=r"npz:none\.npz"):
        datasets.load(f"npz:{tmp_path / 'none.npz'}")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(MalformedError):
        datasets.load(f"npz:{tmp_path / 'text.npz'}")
