"""SVHN and image folders: files written by scipy and Pillow themselves."""

import hashlib
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from auditor import datasets
from auditor.datasets import folder as folders
from auditor.datasets import mat_worker, svhn
from auditor.datasets.folder import ImageOptions, read_options
from auditor.errors import MalformedError, MissingPartError, UsageError

GENERATOR = np.random.default_rng(0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDITOR_DATA", str(tmp_path))
    (tmp_path / "svhn").mkdir()
    return tmp_path / "svhn"


def digits(n):
    return GENERATOR.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]


def write_svhn(home, *, compress=False):
    made = {}
    for part, n in (("train", 60), ("test", 20)):
        images, labels = digits(n)
        savemat(home / f"{part}_32x32.mat", {"X": images, "y": labels}, do_compression=compress)
        made[part] = images, labels
    return made


@pytest.mark.parametrize("compress", [False, True])
def test_svhn_has_every_image_once_under_its_digit(home, compress):
    made = write_svhn(home, compress=compress)
    dataset = datasets.load("svhn")
    assert dataset.spec.shape == (3, 32, 32)
    assert dataset.classes == tuple("0123456789")
    assert [len(part) for part in (dataset.train, dataset.carriers, dataset.test)] == [54, 6, 20]
    images, labels = made["train"]
    wanted = {images[..., i].tobytes(): int(labels[i, 0]) % 10 for i in range(60)}
    found = {
        np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes(): int(label)
        for part in (dataset.train, dataset.carriers)
        for image, label in zip(part.inputs, part.labels, strict=True)
    }
    assert found == wanted
    assert dataset.test.labels.tolist() == [int(digit) % 10 for digit in made["test"][1][:, 0]]


def test_missing_svhn_says_where_to_get_it(home):
    home.rmdir()
    with pytest.raises(MissingPartError, match=r"Stanford.*svhn.*AUDITOR_DATA"):
        datasets.load("svhn")
    home.mkdir()
    with pytest.raises(MissingPartError, match=r"train_32x32\.mat"):
        datasets.load("svhn")


def test_svhn_without_scipy_names_what_to_install(home, monkeypatch, tmp_path):
    write_svhn(home)
    worker = tmp_path / "worker.py"
    source = Path(mat_worker.__file__).read_text()
    worker.write_text("import sys\nsys.modules['scipy.io'] = None\n" + source)
    monkeypatch.setattr(mat_worker, "__file__", str(worker))
    with pytest.raises(MissingPartError, match=r"scipy.*\[statistics\]"):
        datasets.load("svhn")


X, Y = digits(60)


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"X": X}, "X and y|and y"),
        ({"X": X.astype(np.float64), "y": Y}, "uint8"),
        ({"X": X.transpose(3, 0, 1, 2), "y": Y}, "shape"),
        ({"X": X, "y": Y[:-1]}, "one label each"),
        ({"X": X, "y": np.array([["a"]] * 60, dtype=object)}, "one label each"),
        ({"X": {"a": 1}, "y": Y}, "shape"),
    ],
)
def test_svhn_of_another_kind_is_malformed(home, arrays, what):
    write_svhn(home)
    savemat(home / "train_32x32.mat", arrays)
    with pytest.raises(MalformedError, match=what):
        datasets.load("svhn")


def test_labels_out_of_range_are_malformed():
    part = svhn._part(X, Y.T, what="x")
    assert part.labels.tolist() == [*range(1, 10), 0] * 6
    for labels in (Y - 1, Y + 1, Y + 0.5, Y * np.nan, Y[:-1], Y.astype("U")):
        with pytest.raises(MalformedError, match="x: "):
            svhn._part(X, labels, what="x")


def test_damaged_svhn_files_are_malformed(home):
    write_svhn(home)
    path = home / "train_32x32.mat"
    whole = path.read_bytes()

    def changed(place, value):
        return whole[:place] + bytes([value]) + whole[place + 1 :]

    hdf5 = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" + bytes(400)
    # The last three end scipy's reader by a signal: complex pixels, and two unknown types of element.
    for data in (b"", whole[:200], whole[:-50], hdf5, changed(145, 8), changed(184, 127), changed(185, 255)):
        path.write_bytes(data)
        with pytest.raises(MalformedError, match=r"^train_32x32\.mat: not a readable MATLAB 5 file") as caught:
            datasets.load("svhn")
        assert "\n" not in str(caught.value)


def test_a_reader_that_never_ends_is_stopped(home, monkeypatch):
    write_svhn(home)
    monkeypatch.setattr(svhn, "TIME_LIMIT_S", 0.01)
    with pytest.raises(MalformedError, match=r"not read within 0\.01 s"):
        datasets.load("svhn")


def paint(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def colour(shape=(6, 5)):
    return GENERATOR.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Forty images of 6 x 5 pixels in two classes."""
    root = tmp_path / "pets"
    made = {}
    for name in ("cats", "dogs"):
        for i in range(20):
            made[name, i] = paint(root / name / f"{i}.png", colour())
    return root, made


def rows(part):
    return {
        image.transpose(1, 2, 0).tobytes(): int(label) for image, label in zip(part.inputs, part.labels, strict=True)
    }


def test_a_folder_of_class_folders(pets):
    root, made = pets
    (root / ".hidden").write_text("x")
    dataset = datasets.load(f"folder:{root}")
    assert dataset.name == "folder:pets"
    assert dataset.classes == ("cats", "dogs")
    assert dataset.spec.shape == (3, 6, 5)
    parts = (dataset.train, dataset.carriers, dataset.test)
    assert [len(part) for part in parts] == [32, 4, 4]
    found = {}
    for part in parts:
        found |= rows(part)
    assert found == {pixels.tobytes(): int(name == "dogs") for (name, _), pixels in made.items()}


def test_the_split_follows_the_digests_of_the_files_not_their_names(pets):
    root, _ = pets
    one = datasets.load(f"folder:{root}")
    by_digest = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*/*.png"))
    first = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in root.glob("*/*.png")}
    wanted = [np.asarray(Image.open(first[digest])).tobytes() for digest in by_digest[:4]]
    assert [image.transpose(1, 2, 0).tobytes() for image in one.carriers.inputs] == wanted
    for name in ("cats", "dogs"):
        for path in sorted((root / name).iterdir()):
            path.rename(path.with_name(f"{99 - int(path.stem)}.PNG"))
    two = datasets.load(f"folder:{root}")
    for part in ("train", "carriers", "test"):
        assert np.array_equal(getattr(one, part).inputs, getattr(two, part).inputs)
        assert np.array_equal(getattr(one, part).labels, getattr(two, part).labels)


def test_copies_of_one_file_lie_in_one_part(pets):
    root, _ = pets
    for name in ("cats", "dogs"):
        for path in sorted((root / name).iterdir()):
            shutil.copy(path, path.with_name(f"copy-{path.name}"))
    for path in sorted((root / "cats").iterdir())[::3]:
        shutil.copy(path, path.with_name(f"third-{path.name}"))
    dataset = datasets.load(f"folder:{root}")
    images = [{image.tobytes() for image in part.inputs} for part in (dataset.train, dataset.carriers, dataset.test)]
    assert len(set.union(*images)) == sum(len(each) for each in images) == 40


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_folder_with_a_split_of_its_own(pets, tmp_path, held_out):
    root, _ = pets
    split = tmp_path / "split"
    shutil.copytree(root, split / "train")
    for i, name in enumerate(("cats", "dogs")):
        paint(split / held_out / name / "one.png", np.full((6, 5, 3), i, dtype=np.uint8))
    dataset = datasets.load(f"folder:{split}")
    assert [len(part) for part in (dataset.train, dataset.carriers, dataset.test)] == [36, 4, 2]
    assert dataset.test.inputs[:, 0, 0, 0].tolist() == dataset.test.labels.tolist() == [0, 1]
    shutil.copytree(split / held_out / "cats", split / held_out / "cows")
    with pytest.raises(MalformedError, match=r"'cows', which is no class"):
        datasets.load(f"folder:{split}")


def test_jpeg_files_are_what_pillow_reads(tmp_path):
    root = tmp_path / "photos"
    for name in ("a", "b"):
        for i in range(10):
            paint(root / name / f"{i}.jpeg", colour((16, 16)), quality=90)
    dataset = datasets.load(f"folder:{root}")
    wanted = {np.asarray(Image.open(path)).tobytes() for path in root.glob("*/*.jpeg")}
    assert set(rows(dataset.train) | rows(dataset.carriers) | rows(dataset.test)) == wanted


def test_grey_images_have_one_channel_unless_told_otherwise(tmp_path):
    root = tmp_path / "grey"
    for name in ("a", "b"):
        for i in range(10):
            paint(root / name / f"{i}.png", GENERATOR.integers(0, 256, (4, 4), dtype=np.uint8))
    assert datasets.load(f"folder:{root}").spec.shape == (1, 4, 4)
    dataset = datasets.load(f"folder:{root}?grey=no")
    assert dataset.spec.shape == (3, 4, 4)
    assert np.array_equal(dataset.train.inputs[:, 0], dataset.train.inputs[:, 2])
    paint(root / "a" / "coloured.png", colour((4, 4)))
    assert datasets.load(f"folder:{root}").spec.shape == (3, 4, 4)
    dataset = datasets.load(f"folder:{root}?grey=yes")
    assert dataset.spec.shape == (1, 4, 4)
    assert dataset.name == "folder:grey?grey=yes"


def test_grey_is_the_published_weighting(tmp_path):
    root = tmp_path / "luma"
    pixels = [paint(root / name / f"{i}.png", colour((4, 4))) for name in ("a", "b") for i in range(10)]
    dataset = datasets.load(f"folder:{root}?grey=yes")
    parts = [each.inputs for each in (dataset.train, dataset.carriers, dataset.test)]
    found = np.concatenate(parts).astype(np.float64)[:, 0].mean(axis=(1, 2))
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    wanted = [(image.astype(np.float64) @ [0.299, 0.587, 0.114]).mean() for image in pixels]
    assert np.allclose(sorted(found), sorted(wanted), atol=0.6)


def test_images_are_cut_around_their_middle_and_scaled(tmp_path):
    root = tmp_path / "large"
    small = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    for name in ("a", "b"):
        for i in range(10):
            wide = GENERATOR.integers(0, 256, (4, 8), dtype=np.uint8)
            wide[:, 2:6] = small
            paint(root / name / f"{i}.png", wide)
    dataset = datasets.load(f"folder:{root}?size=4")
    for part in (dataset.train, dataset.carriers, dataset.test):
        assert all(np.array_equal(image[0], small) for image in part.inputs)
    assert datasets.load(f"folder:{root}?size=2x4").spec.shape == (1, 2, 4)


def test_images_of_different_sizes_need_one(pets):
    root, _ = pets
    paint(root / "cats" / "other.png", colour((7, 7)))
    with pytest.raises(MalformedError, match=r"2 different sizes.*\?size=32"):
        datasets.load(f"folder:{root}")
    assert datasets.load(f"folder:{root}?size=8&grey=yes").spec.shape == (1, 8, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_are_converted(tmp_path, mode):
    root = tmp_path / "modes"
    suffix = "jpg" if mode == "CMYK" else "png"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(colour((4, 4))).convert(mode)
            options = {"transparency": b"\x40\x80"} if mode == "P" else {}
            image.save(root / name / f"{i}.{suffix}", **options)
    dataset = datasets.load(f"folder:{root}?grey=no")
    wanted = {np.asarray(Image.open(p).convert("RGBA" if mode == "P" else mode).convert("RGB")).tobytes()
              for p in root.glob(f"*/*.{suffix}")}  # fmt: skip
    assert set(rows(dataset.train)) <= wanted


def png_head(width, height):
    body = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def idat(data):
    body = b"IDAT" + zlib.compress(data)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def test_broken_files_and_bombs_are_one_clear_line(pets):
    root, _ = pets
    path = root / "cats" / "3.png"
    whole = path.read_bytes()
    sixteen = root.parent / "sixteen.png"
    Image.fromarray(np.zeros((6, 5), dtype=np.uint16)).save(sixteen)
    cases = {
        "empty": (b"", "not a readable"),
        "text": (b"hello", "not a readable"),
        "gif": (b"GIF89a" + bytes(60), "not a readable"),
        "cut": (whole[: len(whole) // 2], "broken image"),
        "flipped": (whole[:60] + bytes([whole[60] ^ 0xFF]) + whole[61:], "broken image"),
        "warned bomb": (png_head(12_000, 12_000) + idat(b"\0"), "not a readable|too many"),
        "refused bomb": (png_head(60_000, 60_000) + idat(b"\0"), "not a readable|too many"),
        "below the warning": (png_head(9_000, 9_000) + idat(b"\0"), "too many"),
        "sixteen bits": (sixteen.read_bytes(), "8 bits a channel"),
    }
    for name, (data, what) in cases.items():
        path.write_bytes(data)
        with pytest.raises(MalformedError, match=what) as caught:
            datasets.load(f"folder:{root}")
        assert "cats/3.png" in str(caught.value), name
        assert "\n" not in str(caught.value), name
        assert str(root) not in str(caught.value), name


def test_a_text_bomb_in_a_png_is_harmless(pets):
    root, _ = pets
    path = root / "cats" / "3.png"
    whole = path.read_bytes()
    body = b"zTXtname\0\0" + zlib.compress(bytes(1 << 26), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(whole[:33] + chunk + whole[33:])
    with pytest.raises(MalformedError, match=r"cats/3\.png"):
        datasets.load(f"folder:{root}")


def test_limits_of_files_and_totals(pets, monkeypatch):
    root, _ = pets
    monkeypatch.setattr(folders, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(MalformedError, match=r"40 images of this size do not fit; take a smaller \?size="):
        datasets.load(f"folder:{root}")
    assert len(datasets.load(f"folder:{root}?size=2&grey=yes").train) == 32
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 50)
    with pytest.raises(MalformedError, match="larger than 50 bytes"):
        datasets.load(f"folder:{root}")


def test_folders_of_another_kind(pets, tmp_path):
    root, _ = pets
    for given in (tmp_path / "none", root / "cats" / "1.png"):
        with pytest.raises(MissingPartError, match="no such folder"):
            datasets.load(f"folder:{given}")
    with pytest.raises(MalformedError, match="lies beside the class folders"):
        datasets.load(f"folder:{root / 'cats'}")
    (root / "dogs" / "notes.txt").write_text("x")
    with pytest.raises(MalformedError, match=r"dogs/notes\.txt is not a PNG or JPEG"):
        datasets.load(f"folder:{root}")
    (root / "dogs" / "notes.txt").unlink()
    (root / "empty").mkdir()
    with pytest.raises(MalformedError, match="class 'empty' has no images"):
        datasets.load(f"folder:{root}")
    shutil.rmtree(root / "empty")
    shutil.rmtree(root / "dogs")
    with pytest.raises(MalformedError, match="at least two folders"):
        datasets.load(f"folder:{root}")
    for name in ("a", "b"):
        paint(tmp_path / "few" / name / "1.png", colour())
    with pytest.raises(MalformedError, match="too few images"):
        datasets.load(f"folder:{tmp_path / 'few'}")


def test_options_are_read_strictly():
    assert read_options("") == ImageOptions()
    assert read_options("size=32") == ImageOptions(size=(32, 32))
    assert read_options("grey=no&size=8x16") == ImageOptions(size=(8, 16), grey=False)
    for written in (
        "size", "size=", "size=0", "size=-1", "size=1x2x3", "size=2000", "size=8&size=9", "grey", "grey=maybe",
        "colour=yes", "size=8&", "&", "size=٣", "size=1e2",
    ):  # fmt: skip
        with pytest.raises(UsageError):
            read_options(written)


def test_a_folder_without_pillow_names_what_to_install(pets, monkeypatch):
    root, _ = pets
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPartError, match=r"Pillow.*\[images\]"):
        datasets.load(f"folder:{root}")
