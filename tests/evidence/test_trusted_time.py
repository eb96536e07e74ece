"""Step 5 over whole bundles: tokens at the right files, under the judge's roots, in the order of an audit."""

import shutil
from datetime import timedelta

import authorities
import bundles
import pytest

from auditor.errors import TimestampError
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.token_files import add_beside, read_beside, token_path

PASS, FAIL, NOT_CHECKED = CheckOutcome.PASS, CheckOutcome.FAIL, CheckOutcome.NOT_CHECKED
FIRST, LAST = bundles.START, bundles.START + timedelta(minutes=5)
SEAL, HEAD, MANIFEST = "seal/k.seal.1.tsr", "transcript.head.1.tsr", "manifest.1.tsr"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    start = FIRST - timedelta(days=30)
    return authorities.Authority(tmp_path_factory.mktemp("tsa"), start=start)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("other"), name="O", start=FIRST - timedelta(days=30))


def stamped(folder, authority, *, seal=-timedelta(hours=1), head=timedelta(minutes=1), manifest=timedelta(minutes=2)):
    """Make a bundle whose tokens state these times, counted from the first record."""
    left = iter((head, manifest))

    def stamp(data):
        moment = next(left)
        return () if moment is None else (authority.stamp(data, FIRST + moment),)

    def stamp_seal(data):
        return () if seal is None else (authority.stamp(data, FIRST + seal),)

    return bundles.make_bundle(folder, stamp=stamp, stamp_seal=stamp_seal)


@pytest.fixture(scope="module")
def original(tmp_path_factory, authority):
    return stamped(tmp_path_factory.mktemp("time") / "bundle", authority).folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


def steps(folder, roots=()):
    report = check_bundle(
        folder, owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None, tsa_roots=roots
    )
    return {step.number: step for step in report.steps}


def test_three_stamped_files_in_order_pass(folder, authority):
    found = steps(folder, authority.roots)[5]
    assert found.outcome is PASS, found.detail
    assert "seal 2026-11-22T09:00:00.000Z" in found.detail
    assert all(step.outcome is not FAIL for step in steps(folder, authority.roots).values())


def test_without_roots_tokens_are_never_passed(folder):
    found = steps(folder)[5]
    assert found.outcome is NOT_CHECKED
    assert "--tsa-root" in found.detail


def test_without_tokens_the_bundle_says_so(tmp_path):
    found = steps(bundles.make_bundle(tmp_path / "plain").folder)[5]
    assert found.outcome is NOT_CHECKED
    assert found.detail.startswith("not independently time-stamped")


def test_a_foreign_root_fails(folder, other):
    found = steps(folder, other.roots)[5]
    assert found.outcome is FAIL
    assert "no time stamp over the seal verifies" in found.detail


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ({"seal": timedelta(minutes=1)}, "only after the first record"),
        ({"head": -timedelta(minutes=30)}, "clock runs ahead"),
        ({"manifest": timedelta(seconds=30)}, "before the transcript's head"),
    ],
)
def test_times_out_of_order_fail(tmp_path, authority, times, told):
    found = steps(stamped(tmp_path / "bundle", authority, **times).folder, authority.roots)[5]
    assert found.outcome is FAIL
    assert told in found.detail


@pytest.mark.parametrize("missing", ["seal", "head", "manifest"])
def test_a_file_without_a_token_leaves_the_step_open(tmp_path, authority, missing):
    found = steps(stamped(tmp_path / "bundle", authority, **{missing: None}).folder, authority.roots)[5]
    assert found.outcome is NOT_CHECKED
    assert "not independently time-stamped" in found.detail


def test_a_token_added_later_changes_nothing_else(folder, authority, other):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (added,) = add_beside(
        folder / "manifest.dsse.json", [other.stamp((folder / "manifest.dsse.json").read_bytes(), LAST)]
    )
    assert added.name == "manifest.2.tsr"
    assert {path: path.read_bytes() for path in before} == before
    assert steps(folder, (*authority.roots, *other.roots))[5].outcome is PASS
    # The second authority is unknown to this judge: said, and not passed over.
    half = steps(folder, authority.roots)[5]
    assert half.outcome is NOT_CHECKED
    assert "manifest.2.tsr" in half.detail


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("tamper", "step"),
    [
        (lambda f, o: flip(f / SEAL), 2),
        (lambda f, o: (f / SEAL).unlink(), 2),
        (lambda f, o: shutil.copy(f / SEAL, f / "seal/k.seal.2.tsr"), 2),
        (lambda f, o: flip(f / HEAD), 2),
        (lambda f, o: (f / HEAD).unlink(), 2),
        (lambda f, o: flip(f / "transcript.head.dsse.json"), 2),
        (lambda f, o: flip(f / MANIFEST), 5),
        (lambda f, o: shutil.copy(f / HEAD, f / MANIFEST), 5),
        (lambda f, o: shutil.copy(f / MANIFEST, f / "manifest.2.tsr"), 5),
        (lambda f, o: (f / MANIFEST).rename(f / "manifest.2.tsr"), 5),
        (lambda f, o: shutil.copy(o / MANIFEST, f / MANIFEST), 5),
        (lambda f, o: (f / MANIFEST).write_bytes(b""), 5),
        (lambda f, o: (f / "manifest.33.tsr").write_bytes(b""), 1),
        (lambda f, o: (f / "manifest.0.tsr").write_bytes(b""), 1),
        (lambda f, o: (f / "results.1.tsr").write_bytes(b""), 1),
    ],
)
def test_tampering_with_tokens_fails_at_the_named_step(folder, authority, tmp_path, tamper, step):
    another = stamped(tmp_path / "another", authority).folder
    tamper(folder, another)
    found = steps(folder, authority.roots)
    assert found[step].outcome is FAIL, found[step].detail
    assert all(found[number].outcome is not FAIL for number in range(1, step))


def test_removing_the_token_over_the_manifest_is_never_a_pass(folder, authority):
    (folder / MANIFEST).unlink()
    assert steps(folder, authority.roots)[5].outcome is NOT_CHECKED


def test_more_than_32_tokens_cannot_be_added(folder, authority):
    manifest = folder / "manifest.dsse.json"
    add_beside(manifest, [authority.stamp(manifest.read_bytes(), LAST) for _ in range(31)])
    assert len(read_beside(manifest)) == 32
    with pytest.raises(TimestampError, match="more than 32"):
        add_beside(manifest, [authority.stamp(manifest.read_bytes(), LAST)])


def test_token_names():
    assert token_path("seal/k.seal.json", 1) == "seal/k.seal.1.tsr"
    assert token_path("transcript.head.dsse.json", 12) == "transcript.head.12.tsr"
    assert token_path("manifest.dsse.json", 2) == "manifest.2.tsr"


def test_a_token_this_version_cannot_read_names_the_stock_command(folder, authority):
    manifest = folder / MANIFEST
    manifest.write_bytes(authorities.loosely_encoded(manifest.read_bytes()))
    found = steps(folder, authority.roots)[5]
    assert found.outcome is NOT_CHECKED
    assert "openssl ts -verify -data manifest.dsse.json -in manifest.1.tsr" in found.detail
