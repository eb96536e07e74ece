"""Bundles in zip files: packed by us and by stock tools, and hostile archives of every kind."""

import io
import shutil
import stat
import struct
import subprocess
import zipfile
from datetime import timedelta

import authorities
import bundles
import pytest
import tampering
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from auditor.cli.app import app
from auditor.errors import MalformedError
from auditor.evidence import zipped
from auditor.evidence.bundle_folder import all_files
from auditor.evidence.manifest import FOLDERS
from auditor.evidence.zipped import pack_bundle, unpack_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bundles.make_bundle(tmp_path_factory.mktemp("zip") / "bundle").folder


@pytest.fixture(scope="module")
def members(folder):
    return {path: (folder / path).read_bytes() for path in sorted(all_files(folder))}


def archive(files, *, method=zipfile.ZIP_DEFLATED, around="", mode=0o644) -> bytes:
    """Return a zip of (name, data) pairs or of a mapping; names are written as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = zipfile.ZipInfo("x")
            info.filename = around + name
            info.external_attr = mode << 16
            out.writestr(info, data, compress_type=method)
    return buffer.getvalue()


def unpack(data: bytes, tmp_path):
    path, into = tmp_path / "bundle.zip", tmp_path / "into"
    path.write_bytes(data)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    unpack_bundle(path, into)
    return into


def files_of(folder):
    return {path: (folder / path).read_bytes() for path in sorted(all_files(folder))}


def test_pack_then_unpack_is_identity_and_deterministic(folder, members, tmp_path):
    packed = pack_bundle(folder)
    assert packed == pack_bundle(shutil.copytree(folder, tmp_path / "copy"))
    assert files_of(unpack(packed, tmp_path)) == members
    with zipfile.ZipFile(io.BytesIO(packed)) as found:
        assert found.namelist() == sorted(members)
        assert {info.date_time for info in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_archives_of_stock_tools_are_read(folder, members, tmp_path):
    stock = shutil.make_archive(str(tmp_path / "stock"), "zip", root_dir=folder.parent, base_dir="bundle")
    with open(stock, "rb") as file:
        assert files_of(unpack(file.read(), tmp_path)) == members
    bare = shutil.make_archive(str(tmp_path / "bare"), "zip", root_dir=folder)
    with open(bare, "rb") as file:
        assert files_of(unpack(file.read(), tmp_path)) == members
    if shutil.which("unzip"):
        (tmp_path / "ours.zip").write_bytes(pack_bundle(folder))
        subprocess.run(["unzip", "-q", "ours.zip", "-d", "plain"], cwd=tmp_path, check=True)
        assert files_of(tmp_path / "plain") == members


def test_every_place_of_a_bundle_travels_in_a_zip(tmp_path):
    authority = authorities.Authority(tmp_path / "tsa", start=bundles.START - timedelta(days=30))
    made = tampering.complete_bundle(tmp_path / "bundle", authority, pdf=False)
    members = files_of(made.folder)
    assert {path.partition("/")[0] for path in members if "/" in path} == set(FOLDERS)
    assert files_of(unpack(pack_bundle(made.folder), tmp_path)) == members
    keys = ["--owner-key", made.owner.fingerprint, "--witness-key", tampering.WITNESS.fingerprint, "--json"]
    told = [
        CliRunner().invoke(app, ["check", str(path), "--tsa-root", str(authority.root_path), *keys])
        for path in (tmp_path / "bundle.zip", made.folder)
    ]
    assert told[0].exit_code == 0
    assert told[0].stdout == told[1].stdout
    # The one place that only served marks have.
    (made.folder / "guard.json").write_bytes(b"{}")
    assert "guard.json" in files_of(unpack(pack_bundle(made.folder), tmp_path))


def test_check_takes_what_pack_makes(folder, tmp_path):
    target = tmp_path / "mailed.zip"
    run = CliRunner().invoke
    done = run(app, ["pack", str(folder), "--out", str(target)])
    assert (done.exit_code, done.stdout.strip()) == (0, str(target))
    from_zip, from_folder = run(app, ["check", str(target)]), run(app, ["check", str(folder)])
    assert from_zip.exit_code == 0
    assert from_zip.stdout == from_folder.stdout
    assert run(app, ["pack", str(folder), "--out", str(target)]).exit_code == 2
    assert run(app, ["pack", str(tmp_path / "absent")]).exit_code == 2
    target.write_bytes(b"no zip")
    refused = run(app, ["check", str(target)])
    assert refused.exit_code == 5
    assert refused.stderr.startswith("auditor: the archive cannot be read")


def link(members):
    data = archive({**members, "results.json": b"/etc/hostname"})
    return _with_mode(data, "results.json", stat.S_IFLNK | 0o777)


def _with_mode(data: bytes, name: str, mode: int) -> bytes:
    place = data.rfind(name.encode())
    start = data.rfind(b"PK\x01\x02", 0, place)
    return data[: start + 38] + struct.pack("<I", mode << 16) + data[start + 42 :]


def encrypted(members):
    data = bytearray(archive(members))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + offset] |= 1
    return bytes(data)


def twice(members):
    with pytest.warns(UserWarning, match="Duplicate"):
        return archive([*members.items(), ("results.json", b"{}\n")])


def understated(members):
    """The directory promises ten bytes; the packed data go on."""
    data = bytearray(archive(members, method=zipfile.ZIP_STORED))
    place = data.find(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 10)
    return bytes(data)


def bomb(members):
    return archive({**members, "report.html": bytes(50_000_000)})


HOSTILE = {
    "parent folder": (lambda m: archive({**m, "../evil": b"x"}), "no place"),
    "parent folder inside": (lambda m: archive({**m, "raw/../../evil": b"x"}), "no place"),
    "absolute": (lambda m: archive({**m, "/tmp/evil": b"x"}), "no place"),
    "drive": (lambda m: archive({**m, "C:\\evil": b"x"}), "no place"),
    "backslash": (lambda m: archive({**m, "..\\evil": b"x"}), "no place"),
    "parent folder around": (lambda m: archive(m, around="../"), "outside"),
    "root around": (lambda m: archive(m, around="/"), "outside"),
    "two folders around": (lambda m: archive(m, around="a/b/"), "no manifest"),
    "file beside the folder": (lambda m: archive({**{f"b/{n}": d for n, d in m.items()}, "evil": b"x"}), "outside"),
    "unknown file": (lambda m: archive({**m, "note.txt": b"x"}), "no place"),
    "other case of a name": (lambda m: archive({**m, "Results.json": b"x"}), "no place"),
    "unknown folder": (lambda m: archive({**m, "more/": b""}), "unknown folder"),
    "folder in a known one": (lambda m: archive({**m, "raw/more/": b""}), "unknown folder"),
    "file in a folder too deep": (lambda m: archive({**m, "raw/more/x": b""}), "no place"),
    "link": (link, "link"),
    "twice": (twice, "twice"),
    "encrypted": (encrypted, "encrypted"),
    "other compression": (lambda m: archive(m, method=zipfile.ZIP_LZMA), "compression"),
    "ratio": (bomb, "times its packed size"),
    "understated size": (understated, "archive"),
    "no manifest": (lambda m: archive({n: d for n, d in m.items() if n != "manifest.json"}), "no manifest"),
    "empty": (lambda m: archive({}), "no manifest"),
    "nothing": (lambda m: b"", "cannot be read"),
    "no zip": (lambda m: b"junk" * 1000, "cannot be read"),
    "cut": (lambda m: archive(m)[:-30], "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_nothing_lies_outside(members, tmp_path, name):
    make, told = HOSTILE[name]
    with pytest.raises(MalformedError, match=told):
        unpack(make(members), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.zip", "into"}


@pytest.mark.parametrize(("limit", "value"), [
    ("MAX_FILES", 5), ("MAX_FILE_BYTES", 100), ("MAX_TOTAL_BYTES", 1000), ("MAX_ARCHIVE_BYTES", 1000),
])  # fmt: skip
def test_limits(members, tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(zipped, limit, value)
    with pytest.raises(MalformedError, match=str(value)):
        unpack(archive(members), tmp_path)


def test_a_folder_that_cannot_be_written_to_is_one_error(members, tmp_path):
    path = tmp_path / "bundle.zip"
    path.write_bytes(archive(members))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MalformedError, match="cannot be unpacked"):
        unpack_bundle(path, tmp_path / "file")


@settings(max_examples=150)
@given(data=st.data())
def test_flips_and_cuts_give_our_error_or_the_same_files(members, tmp_path_factory, data):
    """An archive is only a wrapping: whatever still unpacks holds bundle names only, and `check` compares digests."""
    good = archive(members)
    place = data.draw(st.integers(0, len(good) - 1))
    broken = bytearray(good[: data.draw(st.sampled_from([len(good), place]))] or b"\0")
    broken[min(place, len(broken) - 1)] ^= data.draw(st.integers(1, 255))
    tmp_path = tmp_path_factory.mktemp("flip")
    try:
        into = unpack(bytes(broken), tmp_path)
    except MalformedError:
        into = tmp_path / "into"
    # Anything but bundle names in the folder would raise here.
    all_files(into)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle.zip", "into"}
    shutil.rmtree(tmp_path)
