"""Cosignatures and the later custody log of a bundle: written by the commands, re-checked, tampered with."""

import dataclasses
import json
import logging
import shutil
import subprocess

import bundles
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from typer.testing import CliRunner

from auditor.canonical import sha256_hex
from auditor.cli.app import app
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.signing import SigningKey

FAIL, PASS, NOT_CHECKED = CheckOutcome.FAIL, CheckOutcome.PASS, CheckOutcome.NOT_CHECKED
SIGNATURES, CUSTODY = 18, 19


@pytest.fixture(autouse=True)
def _no_handler_of_an_earlier_command():
    logging.getLogger("auditor").handlers.clear()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def steps(folder, *, witnesses=(), head=None):
    report = check_bundle(
        folder,
        owner_fingerprint=None,
        examiner_fingerprint=None,
        render_html=None,
        check_pdf=None,
        witness_fingerprints=witnesses,
        custody_head=head,
    )
    return {step.number: step for step in report.steps}


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    key = SigningKey.generate()
    path = tmp_path_factory.mktemp("keys") / "w.pem"
    key.write_pem(path)
    return key, path


@pytest.fixture(scope="module")
def signed(tmp_path_factory, witness):
    """A bundle that a witness signed and that was handed over."""
    made = bundles.make_bundle(tmp_path_factory.mktemp("signed") / "bundle")
    done = run("cosign", made.folder, "--key", witness[1], "--role", "witness", "--note", "saw it being asked")
    assert done.exit_code == 0, done.output
    done = run("custody", "add", made.folder, "--event", "handed-over", "--by", "B. Examiner", "--note", "to the court")
    assert done.exit_code == 0, done.output
    return made


@pytest.fixture
def made(signed, tmp_path):
    shutil.copytree(signed.folder, tmp_path / "bundle")
    return dataclasses.replace(signed, folder=tmp_path / "bundle")


def cosignature(folder):
    return next((folder / "cosignatures").iterdir())


def test_a_witness_adds_files_and_changes_none(tmp_path, witness):
    made = bundles.make_bundle(tmp_path / "bundle")
    before = {path: path.read_bytes() for path in made.files()}
    done = run("cosign", made.folder, "--key", witness[1], "--role", "judge")
    assert witness[0].fingerprint in done.stdout
    added = made.folder / f"cosignatures/{witness[0].fingerprint}.dsse.json"
    assert set(made.files()) - set(before) == {added}
    for path, data in before.items():
        assert path.read_bytes() == data or path.name == "custody.later.jsonl"
        assert path.read_bytes().startswith(data)


def test_securesystemslib_verifies_a_cosignature(made, witness):
    key = SSlibKey(witness[0].fingerprint, "ed25519", "ed25519", {"public": witness[0].public.hex()})
    found = Envelope.from_dict(json.loads(cosignature(made.folder).read_bytes()))
    assert set(found.verify([key], 1)) == {witness[0].fingerprint}
    statement = json.loads(found.payload)
    assert statement["subject"][0]["digest"]["sha256"] == sha256_hex((made.folder / "manifest.json").read_bytes())
    assert statement["predicate"]["role"] == "witness"
    assert statement["predicate"]["note"] == "saw it being asked"


def test_a_demanded_witness_passes_and_an_unnamed_one_is_listed(made, witness):
    found = steps(made.folder, witnesses=[witness[0].fingerprint.upper()])
    assert found[SIGNATURES].outcome is PASS
    assert "PASS" in found[SIGNATURES].detail
    found = steps(made.folder)
    assert found[SIGNATURES].outcome is NOT_CHECKED
    assert "holder NOT CHECKED" in found[SIGNATURES].detail
    assert all(step.outcome is not FAIL for step in found.values())


def test_a_witness_who_did_not_sign_fails(made, tmp_path):
    stranger = SigningKey.generate().fingerprint
    found = steps(made.folder, witnesses=[stranger])[SIGNATURES]
    assert found.outcome is FAIL
    assert stranger[:16] in found.detail
    assert run("check", made.folder, "--witness-key", stranger).exit_code == 5


def test_without_further_signatures_the_step_says_what_it_cannot_tell(tmp_path):
    found = steps(bundles.make_bundle(tmp_path / "bundle").folder)
    assert found[SIGNATURES].outcome is PASS
    assert "could not be told" in found[SIGNATURES].detail
    assert found[CUSTODY].outcome is PASS
    assert "1 signed by the examiner" in found[CUSTODY].detail
    assert "cannot be told" in found[CUSTODY].detail


def test_flipping_any_byte_of_a_cosignature_fails(made, witness):
    path = cosignature(made.folder)
    data = path.read_bytes()
    for place in range(0, len(data), 13):
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(broken))
        found = steps(made.folder)
        assert found[SIGNATURES].outcome is FAIL, place
        assert found[CUSTODY].outcome is FAIL


def rename(folder, other):
    path = cosignature(folder)
    path.rename(path.with_name(f"{'00' * 32}.dsse.json"))


def of_another_bundle(folder, other):
    shutil.copy(cosignature(other), cosignature(folder))


def cut_log(folder):
    path = folder / "custody.later.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1]))


def replace_in_log(old, new):
    def change(folder, other):
        path = folder / "custody.later.jsonl"
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return change


TAMPERINGS = {
    "cosignature under another name": (rename, SIGNATURES),
    "cosignature of another bundle": (of_another_bundle, SIGNATURES),
    "cosignature removed": (lambda f, o: cosignature(f).unlink(), CUSTODY),
    "log removed": (lambda f, o: (f / "custody.later.jsonl").unlink(), CUSTODY),
    "log of another bundle": (lambda f, o: shutil.copy(o / "custody.later.jsonl", f), CUSTODY),
    "log edited": (replace_in_log(b"cosigned", b"returned"), CUSTODY),
    "log emptied": (lambda f, o: (f / "custody.later.jsonl").write_bytes(b""), CUSTODY),
    "last line cut": (
        lambda f, o: (f / "custody.later.jsonl").write_bytes((f / "custody.later.jsonl").read_bytes()[:-9]),
        CUSTODY,
    ),
    "foreign file": (lambda f, o: (f / "cosignatures/x.json").write_bytes(b"{}"), 1),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_fails_at_the_named_step(made, tmp_path, witness, name):
    another = bundles.make_bundle(tmp_path / "another").folder
    assert run("cosign", another, "--key", witness[1], "--role", "witness").exit_code == 0
    tamper, step = TAMPERINGS[name]
    tamper(made.folder, another)
    found = steps(made.folder)
    assert found[step].outcome is FAIL, found[step].detail
    assert all(found[number].outcome is not FAIL for number in range(1, step))


def test_cutting_the_latest_entries_shows_against_a_noted_head(made):
    told = run("custody", "show", made.folder, "--json")
    head = json.loads(told.stdout)["head"]
    assert steps(made.folder, head=head)[CUSTODY].outcome is PASS
    cosignature(made.folder).unlink()
    cut_log(made.folder)
    assert steps(made.folder)[CUSTODY].outcome is PASS
    assert steps(made.folder, head=head)[CUSTODY].outcome is FAIL
    assert run("check", made.folder, "--custody-head", head).exit_code == 5


def test_an_older_noted_head_is_still_found(made):
    head = json.loads(run("custody", "show", made.folder, "--json").stdout)["head"]
    assert run("custody", "add", made.folder, "--event", "received", "--by", "The court").exit_code == 0
    assert steps(made.folder, head=head)[CUSTODY].outcome is PASS


def test_one_signature_a_key_and_no_role_that_is_not_its_own(made, witness, tmp_path):
    done = run("cosign", made.folder, "--key", witness[1], "--role", "witness")
    assert done.exit_code == 2
    assert "already" in done.stderr
    for name, key, role in (("e", made.examiner, "witness"), ("o", made.owner, "witness"), ("w", witness[0], "owner")):
        if not (tmp_path / f"{name}.pem").exists():
            key.write_pem(tmp_path / f"{name}.pem")
        assert run("cosign", made.folder, "--key", tmp_path / f"{name}.pem", "--role", role).exit_code == 2
    assert run("cosign", made.folder, "--key", tmp_path / "o.pem", "--role", "owner").exit_code == 0
    assert run("cosign", made.folder, "--key", witness[1], "--role", "friend").exit_code == 2
    assert run("cosign", made.folder, "--key", witness[1], "--role", "judge", "--note", "a\nb").exit_code == 2
    assert run("cosign", tmp_path / "none", "--key", witness[1], "--role", "judge").exit_code == 2


def test_nobody_signs_a_bundle_that_does_not_check_out(made, tmp_path):
    (made.folder / "env.json").write_bytes(b"{}\n")
    SigningKey.generate().write_pem(tmp_path / "x.pem")
    done = run("cosign", made.folder, "--key", tmp_path / "x.pem", "--role", "witness")
    assert done.exit_code == 5
    assert "does not check out" in done.stderr
    assert len(list((made.folder / "cosignatures").iterdir())) == 1


def test_custody_of_a_key_set_reaches_the_bundle(tmp_path, witness):
    from cases import TableSuspect, marked, seal_keys, small_protocol

    from auditor import casefile
    from auditor.audit import Request
    from auditor.cli.declared import brought_along

    opened = seal_keys(tmp_path / "k.npz", small_protocol())
    for event, by in (("handed-over", "A. Owner"), ("received", "B. Examiner")):
        done = run("custody", "add", tmp_path / "k.npz", "--event", event, "--by", by, "--key", witness[1])
        assert done.exit_code == 0, done.output
    brought = brought_along(tmp_path / "k.npz", opened, declarations=None)
    case = casefile.verify(
        opened=opened, suspect=TableSuspect(marked), folder=tmp_path / "a", request=Request(), additions=brought
    )
    assert (case.folder / "seal/k.custody.jsonl").read_bytes() == (tmp_path / "k.custody.jsonl").read_bytes()
    done = run("check", case.folder, "--render")
    assert done.exit_code == 0, done.output
    shown = json.loads(run("custody", "show", case.folder, "--json").stdout)["entries"]
    assert [entry["act"] for entry in shown] == [
        "sealed", "handed-over", "received", "queried", "opened", "analysed", "signed"
    ] or {entry["act"] for entry in shown} >= {"handed-over", "received", "signed"}  # fmt: skip
    page = (case.folder / "report.html").read_text()
    assert "A. Owner" in page
    assert "handed-over" in page


def test_a_broken_log_beside_the_key_set_stops_an_audit(tmp_path):
    from cases import seal_keys, small_protocol

    seal_keys(tmp_path / "k.npz", small_protocol())
    (tmp_path / "k.custody.jsonl").write_bytes(b"{}\n")
    done = run("verify", "--keyset", tmp_path / "k.npz", "--endpoint", "http://127.0.0.1:9/", "--out", tmp_path / "a")
    assert done.exit_code == 5
    assert "custody log" in done.stderr
    assert not (tmp_path / "a").exists()


def test_custody_commands_refuse_what_is_no_target(tmp_path):
    assert run("custody", "add", tmp_path, "--event", "noted", "--by", "A").exit_code == 5
    assert run("custody", "add", tmp_path / "none", "--event", "noted", "--by", "A").exit_code == 2
    assert run("custody", "add", tmp_path, "--event", "signed", "--by", "A").exit_code == 2
    assert run("custody", "add", tmp_path, "--event", "noted", "--by", "").exit_code == 2


def test_the_table_of_custody(made):
    done = run("custody", "show", made.folder)
    assert done.exit_code == 0
    for word in ("sealed", "queried", "cosigned", "handed-over", "custody head:"):
        assert word in done.stdout


def test_openssl_verifies_a_cosignature_by_hand(made, tmp_path):
    text = (made.folder / "CHECK.txt").read_text()
    start = text.index("7. Further signatures")
    commands = [line.strip() for line in text[start:].splitlines() if line.startswith("    ")]
    script = "set -eo pipefail\nwork=$(mktemp -d)\n" + "\n".join(commands[:1])
    done = subprocess.run(["bash", "-c", script], cwd=made.folder, capture_output=True, text=True, check=True)
    assert done.stdout.count("Signature Verified Successfully") == 1
    assert "witness" in done.stdout
