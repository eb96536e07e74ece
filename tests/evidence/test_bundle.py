import json
import os
import subprocess

import authorities
import bundles
import pytest

from auditor.canonical import canonical_bytes, sha256_hex
from auditor.errors import EvidenceError, MalformedError, SealError, SignatureError
from auditor.evidence import bundle as bundle_module
from auditor.evidence import bundle_folder
from auditor.evidence import manifest as manifest_module
from auditor.evidence.bundle import certificate_digest, read_bundle, store_raw, write_manifest
from auditor.evidence.bundle_folder import list_files, read_file
from auditor.evidence.manifest import PLACES, Entry, manifest_bytes, read_manifest, verify_manifest


@pytest.fixture
def made(tmp_path):
    return bundles.make_bundle(tmp_path / "bundle")


def test_a_bundle_reads_back_and_every_file_has_its_digest(made):
    found = read_bundle(made.folder)
    names = {str(path.relative_to(made.folder)) for path in made.files()}
    assert set(found.entries) == names - {"manifest.json", "manifest.dsse.json", "custody.later.jsonl"}
    for path, data in found.contents.items():
        assert data == (made.folder / path).read_bytes()
        assert found.sha256(path) == sha256_hex(data)
    assert found.sha256("report.pdf") is None
    assert not any(path.startswith("raw/") for path in found.contents)


def test_the_examiners_signature_covers_the_manifest_and_names_the_identities(made):
    found = read_bundle(made.folder)
    told = verify_manifest(found.manifest, found.manifest_envelope, examiner_public=made.examiner.public)
    assert told.owner_fingerprint == made.owner.fingerprint
    assert told.examiner_fingerprint == made.examiner.fingerprint
    assert told.seal_sha256 == found.sha256("seal/k.seal.json")
    assert told.report_certificate_sha256 == ""
    with pytest.raises(SignatureError):
        verify_manifest(found.manifest, found.manifest_envelope, examiner_public=made.owner.public)
    with pytest.raises(SealError, match="another manifest"):
        verify_manifest(found.manifest + b" ", found.manifest_envelope, examiner_public=made.examiner.public)


def test_files_are_canonical_and_end_with_one_newline(made):
    for name in ("openings.json", "protocol.json", "results.json", "env.json", "manifest.json", "seal/k.seal.json"):
        data = (made.folder / name).read_bytes()
        assert canonical_bytes(json.loads(data)) + b"\n" == data


def test_nothing_is_ever_written_over(made):
    with pytest.raises(FileExistsError):
        write_manifest(made.folder, examiner=made.examiner, clock=bundles.Clock())
    with pytest.raises(FileExistsError):
        bundle_module.create(made.folder, seal_envelope=b"", environment={})


def test_raw_bodies_are_kept_once_under_their_digest(tmp_path):
    (tmp_path / "raw").mkdir()
    assert store_raw(tmp_path, b"body") == store_raw(tmp_path, b"body") == sha256_hex(b"body")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [sha256_hex(b"body")]


def run_by_hand(made, **environment):
    """Run every indented command of CHECK.txt but the first, which is this package's own."""
    text = (made.folder / "CHECK.txt").read_text()
    assert made.owner.fingerprint in text
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert commands[0].startswith("auditor check")
    before = sorted(os.listdir(made.folder))
    script = "set -eo pipefail\n" + "\n".join(commands[1:])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    assert sorted(os.listdir(made.folder)) == before
    return done.stdout.splitlines()


def test_instructions_by_hand_verify_time_stamps(tmp_path):
    authority = authorities.Authority(tmp_path / "tsa")

    def stamp(data):
        return (authority.stamp(data),)

    made = bundles.make_bundle(tmp_path / "bundle", stamp=stamp, stamp_seal=stamp)
    lines = run_by_hand(made, ROOTS=str(authority.root_path))
    assert lines.count("Verification: OK") == 3
    told = [line.split()[0] for line in lines[-3:]]
    assert told == ["k.seal.1.tsr", "transcript.head.1.tsr", "manifest.1.tsr"]


def test_instructions_by_hand_work(made):
    lines = run_by_hand(made)
    n_files = len(read_bundle(made.folder).entries)
    assert [line for line in lines if line.endswith(": OK")] == lines[:n_files]
    verified, told, manifest, owner_verified, owner, examiner, chain, head, *rest = lines[n_files:]
    assert "Verified Successfully" in verified
    assert told == manifest.split()[0]
    assert "Verified Successfully" in owner_verified
    assert owner.split()[0] == made.owner.fingerprint
    assert examiner.split()[0] == made.examiner.fingerprint
    assert chain == f"chain intact {head}"
    signed, head_verified, transcript, log = rest
    assert log.startswith("log intact ")
    assert "Verified Successfully" in head_verified
    assert signed == transcript.split()[0]


def change_file(made, name, data):
    (made.folder / name).write_bytes(data)


CONTAINER_DEFECTS = {
    "missing file": lambda made: (made.folder / "results.json").unlink(),
    "missing manifest": lambda made: (made.folder / "manifest.json").unlink(),
    "missing signature": lambda made: (made.folder / "manifest.dsse.json").unlink(),
    "extra file": lambda made: change_file(made, "notes.txt", b""),
    "extra file in raw": lambda made: change_file(made, "raw/notes", b""),
    "extra raw body": lambda made: store_raw(made.folder, b"another"),
    "extra report": lambda made: change_file(made, "report.pdf", b"%PDF"),
    "extra folder": lambda made: (made.folder / "more").mkdir(),
    "folder in a folder": lambda made: (made.folder / "raw" / "raw").mkdir(),
    "longer file": lambda made: change_file(made, "report.html", b"<title>longer than before, much longer</title>"),
    "file is a folder": lambda made: ((made.folder / "env.json").unlink(), (made.folder / "env.json").mkdir()),
    "pipe": lambda made: ((made.folder / "env.json").unlink(), os.mkfifo(made.folder / "env.json")),
    "link": lambda made: (
        (made.folder / "env.json").rename(made.folder.parent / "env"),
        (made.folder / "env.json").symlink_to(made.folder.parent / "env"),
    ),
    "linked folder": lambda made: (
        (made.folder / "raw").rename(made.folder.parent / "raw"),
        (made.folder / "raw").symlink_to(made.folder.parent / "raw"),
    ),
}


@pytest.mark.parametrize("name", CONTAINER_DEFECTS)
def test_defective_containers(made, name):
    CONTAINER_DEFECTS[name](made)
    with pytest.raises(EvidenceError):
        read_bundle(made.folder)


@pytest.mark.parametrize("limit", ["MAX_FILES", "MAX_FILE_BYTES", "MAX_TOTAL_BYTES"])
def test_limits(made, monkeypatch, limit):
    monkeypatch.setattr(bundle_folder, limit, 5)
    with pytest.raises(MalformedError, match=r"more than|larger than"):
        list_files(made.folder)


def test_reading_follows_no_link_and_no_pipe(tmp_path):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path, "real") == b"x"
    for name in ("link", "pipe", "absent", "."):
        with pytest.raises(MalformedError):
            read_file(tmp_path, name)


def test_a_folder_with_foreign_files_is_not_signed(tmp_path):
    made = bundles.make_bundle(tmp_path / "bundle")
    for name in ("manifest.json", "manifest.dsse.json", "CHECK.txt"):
        (made.folder / name).unlink()
    (made.folder / "notes.txt").write_bytes(b"x")
    with pytest.raises(MalformedError, match="no place"):
        write_manifest(made.folder, examiner=made.examiner, clock=bundles.Clock())
    assert not (made.folder / "manifest.json").exists()


def entries(**changes) -> dict[str, Entry]:
    required = {path: Entry(path=path, size=1, sha256="ab" * 32) for path, place in PLACES.items() if place.required}
    return required | changes


def changed_manifest(change) -> bytes:
    value = json.loads(manifest_bytes(entries()))
    change(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


MANIFEST_DEFECTS = {
    "unknown schema": lambda v: v.update(schema="x"),
    "unknown field": lambda v: v.update(x=1),
    "out of order": lambda v: v["files"].reverse(),
    "twice": lambda v: v["files"].insert(1, v["files"][0]),
    "required file missing": lambda v: v["files"].pop(),
    "escaping path": lambda v: v["files"].append({**v["files"][0], "path": "../x"}),
    "manifest lists itself": lambda v: v["files"].append({**v["files"][0], "path": "manifest.json"}),
    "another role": lambda v: v["files"][0].update(role="report"),
    "another media type": lambda v: v["files"][0].update(media_type="text/html"),
    "raw name is not its digest": lambda v: v["files"].append(
        {
            "path": "raw/" + "cd" * 32,
            "role": "raw-answer",
            "media_type": "application/octet-stream",
            "size": 1,
            "sha256": "ab" * 32,
        }
    ),
    "size too large": lambda v: v["files"][0].update(size=2**40),
    "size is text": lambda v: v["files"][0].update(size="1"),
    "file is text": lambda v: v["files"].append("x"),
}


@pytest.mark.parametrize("name", MANIFEST_DEFECTS)
def test_defective_manifests(name):
    assert set(read_manifest(manifest_bytes(entries()))) == set(entries())
    with pytest.raises(MalformedError):
        read_manifest(changed_manifest(MANIFEST_DEFECTS[name]))


def test_a_path_without_a_place_is_a_bug():
    with pytest.raises(ValueError, match="no place"):
        manifest_bytes({"x": Entry(path="x", size=1, sha256="ab" * 32)})


def test_certificate_digest_is_that_of_openssl(tmp_path):
    command = (
        "openssl req -x509 -newkey ed25519 -nodes -keyout k -out c -subj /CN=t -days 2 2>/dev/null; "
        "openssl x509 -in c -outform DER | sha256sum"
    )
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert certificate_digest((tmp_path / "c").read_bytes()) == done.stdout.split()[0]
    with pytest.raises(MalformedError, match="certificate"):
        certificate_digest(b"junk")


def test_every_place_names_a_role_and_a_media_type():
    assert manifest_module.place_of("raw/" + "0" * 64).role == "raw-answer"
    assert manifest_module.place_of("raw/" + "0" * 63) is None
    assert manifest_module.place_of("raw/" + "0" * 64 + "\n") is None
