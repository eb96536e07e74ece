"""`auditor stamp`, `verify --tsa` and `check --tsa-root`, with a real authority over HTTP."""

import json
import logging
import shutil
import subprocess

import authorities
import pytest
from cases import TableSuspect, marked, seal_keys, small_protocol
from typer.testing import CliRunner
from web import free_port

from auditor import casefile
from auditor.audit import Request
from auditor.cli.app import app
from auditor.evidence.signing import SigningKey
from auditor.report.pdf_check import check_pdf
from auditor.time_authority import TimeAuthorities


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def url(authority):
    with authorities.serving(authority.reply) as address:
        yield address


@pytest.fixture(autouse=True)
def _no_handler_of_an_earlier_command():
    logging.getLogger("auditor").handlers.clear()


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def only_line(done):
    assert "Traceback" not in done.output
    return next(line for line in done.stderr.splitlines() if line.startswith("auditor: "))


@pytest.fixture
def seal(tmp_path):
    opened = seal_keys(tmp_path / "k.npz", small_protocol())
    (tmp_path / "k.seal.json").write_bytes(opened.envelope)
    return tmp_path / "k.seal.json"


@pytest.fixture(scope="module")
def case(tmp_path_factory, authority, url):
    """A whole audit with time stamps: seal, transcript head, manifest and PDF."""
    folder = tmp_path_factory.mktemp("case")
    opened = seal_keys(folder / "k.npz", small_protocol())
    (folder / "k.seal.json").write_bytes(opened.envelope)
    assert run("stamp", folder / "k.seal.json", "--tsa", url).exit_code == 0
    return casefile.verify(
        opened=opened,
        suspect=TableSuspect(marked),
        folder=folder / "a",
        request=Request(),
        seal_tokens=casefile.seal_tokens(folder / "k.npz", seal=None),
        authorities=TimeAuthorities([url]),
    ).folder


def test_a_stamped_audit_checks_out_under_the_judges_root(case, authority):
    done = run("check", case, "--tsa-root", authority.root_path, "--json")
    assert done.exit_code == 0, done.output
    step = json.loads(done.stdout)["steps"][4]
    assert (step["title"], step["outcome"]) == ("trusted time", "PASS"), step


def test_the_stamped_report_says_so_and_renders_again(case, authority):
    assert "stated by tokens in the bundle: seal 20" in (case / "report.html").read_text()
    done = run("check", case, "--tsa-root", authority.root_path, "--render")
    assert done.exit_code == 0, done.output
    assert "equal byte for byte" in done.stdout
    assert "time-stamped 20" in done.stdout


def test_openssl_verifies_every_token_of_a_bundle(case, authority):
    for data, token in (
        ("seal/k.seal.json", "seal/k.seal.1.tsr"),
        ("transcript.head.dsse.json", "transcript.head.1.tsr"),
        ("manifest.dsse.json", "manifest.1.tsr"),
    ):
        command = ["openssl", "ts", "-verify", "-data", data, "-in", token, "-CAfile", authority.root_path]
        done = subprocess.run(command, cwd=case, capture_output=True, text=True, check=False)
        assert "Verification: OK" in done.stdout + done.stderr, token


@pytest.mark.skipif(shutil.which("pdfsig") is None, reason="poppler-utils is not installed")
def test_pdfsig_accepts_the_stamped_report(case):
    said = subprocess.run(["pdfsig", case / "report.pdf"], capture_output=True, text=True, check=True).stdout
    assert "Signature is Valid" in said
    assert "Total document signed" in said


def test_the_pdfs_time_stamp_is_verified_under_the_callers_roots(case, authority, tmp_path):
    from auditor.errors import TimestampError
    from auditor.evidence.bundle import read_bundle

    bundle = read_bundle(case)
    assert "not verified" in check_pdf(bundle)
    assert "; time-stamped" in check_pdf(bundle, tsa_roots=authority.roots)
    with pytest.raises(TimestampError):
        check_pdf(bundle, tsa_roots=authorities.Authority(tmp_path).roots)


def test_an_authority_that_fails_costs_a_warning_only(tmp_path, caplog):
    opened = seal_keys(tmp_path / "k.npz", small_protocol())
    with authorities.serving(lambda query: b"nonsense") as address:
        made = casefile.verify(
            opened=opened,
            suspect=TableSuspect(marked),
            folder=tmp_path / "a",
            request=Request(),
            authorities=TimeAuthorities([address, f"http://127.0.0.1:{free_port()}/"]),
        )
    assert made.exit_code == 0
    assert "not independently time-stamped" in caplog.text
    assert "signature is not time-stamped" in caplog.text
    assert not list(made.folder.rglob("*.tsr"))
    assert (made.folder / "report.pdf").is_file()
    assert "not independently time-stamped" in (made.folder / "report.html").read_text()
    done = run("check", made.folder, "--render")
    assert done.exit_code == 0
    assert "not independently time-stamped" in done.stdout


def test_stamping_a_seal_adds_one_file_at_a_time(seal, url):
    before = seal.read_bytes()
    for number in (1, 2):
        done = run("stamp", seal, "--tsa", url)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip().endswith(f"k.seal.{number}.tsr")
    assert seal.read_bytes() == before


def test_stamping_a_bundle_later(case, tmp_path, url, authority):
    folder = shutil.copytree(case, tmp_path / "b")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = run("stamp", folder, "--tsa", url)
    assert done.exit_code == 0, done.output
    assert {path for path in folder.rglob("*") if path.is_file()} - set(before) == {folder / "manifest.2.tsr"}
    log = folder / "custody.later.jsonl"
    assert log.read_bytes().startswith(before.pop(log))
    assert {path: path.read_bytes() for path in before} == before
    assert run("check", folder, "--tsa-root", authority.root_path).exit_code == 0
    (folder / "manifest.2.tsr").unlink()
    done = run("check", folder, "--tsa-root", authority.root_path, "--json")
    assert done.exit_code == 5
    (step,) = [step for step in json.loads(done.stdout)["steps"] if step["outcome"] == "FAIL"]
    assert (step["title"], "manifest.2.tsr is gone" in step["detail"]) == ("custody after signing", True)


def test_a_token_carried_by_hand(seal, tmp_path, authority):
    query = tmp_path / "k.tsq"
    assert run("stamp", seal, "--write-tsq", query).exit_code == 0
    (tmp_path / "got.tsr").write_bytes(authority.reply(query.read_bytes()))
    done = run("stamp", seal, "--import-tsr", tmp_path / "got.tsr")
    assert done.exit_code == 0, done.output
    assert seal.with_name("k.seal.1.tsr").read_bytes() == (tmp_path / "got.tsr").read_bytes()
    assert run("stamp", seal, "--import-tsr", tmp_path / "got.tsr").exit_code == 5
    assert run("stamp", seal, "--write-tsq", query).exit_code == 2


def test_a_token_over_another_file_is_not_taken(seal, tmp_path, authority):
    (tmp_path / "other.tsr").write_bytes(authority.stamp(b"something else"))
    done = run("stamp", seal, "--import-tsr", tmp_path / "other.tsr")
    assert done.exit_code == 5
    assert "over other bytes" in only_line(done)
    assert not seal.with_name("k.seal.1.tsr").exists()


def test_an_authority_that_is_down_is_exit_7_and_writes_nothing(seal):
    done = run("stamp", seal, "--tsa", f"http://127.0.0.1:{free_port()}/")
    assert done.exit_code == 7
    assert "no time authority" in only_line(done)
    assert not list(seal.parent.glob("*.tsr"))


def test_what_is_no_seal_and_no_bundle(tmp_path, url):
    (tmp_path / "x.json").write_text("{}")
    assert run("stamp", tmp_path / "x.json", "--tsa", url).exit_code == 5
    assert run("stamp", tmp_path, "--tsa", url).exit_code == 2
    assert run("stamp", tmp_path / "absent", "--tsa", url).exit_code == 2
    assert run("stamp", tmp_path / "x.json").exit_code == 2


def test_a_foreign_token_beside_the_seal_stops_an_audit(seal, authority):
    seal.with_name("k.seal.1.tsr").write_bytes(authority.stamp(b"something else"))
    done = run("verify", "--keyset", seal.with_name("k.npz"), "--endpoint", "http://127.0.0.1:9/")
    assert done.exit_code == 5
    assert "over other bytes" in only_line(done)


def test_roots_that_are_none_are_usage(case, tmp_path):
    (tmp_path / "root.pem").write_text("nothing")
    for path in (tmp_path / "root.pem", tmp_path / "absent.pem"):
        assert run("check", case, "--tsa-root", path).exit_code == 2


def test_named_keys_sign_the_evidence(tmp_path, monkeypatch):
    from auditor.cli.signing_keys import read_key

    key = SigningKey.generate()
    key.write_pem(tmp_path / "plain.pem")
    plain = tmp_path / "plain.pem"
    encrypted = tmp_path / "encrypted.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", plain, "-out", encrypted, "-passout", "pass:sesame", "-v2", "aes256"],
        check=True,
    )
    assert read_key(plain).fingerprint == key.fingerprint
    done = run("verify", "--keyset", "k.npz", "--endpoint", "http://127.0.0.1:9/", "--examiner-key", encrypted)
    assert done.exit_code == 2
    assert "AUDITOR_KEY_PASSPHRASE" in only_line(done)
    assert "sesame" not in done.output
    monkeypatch.setenv("AUDITOR_KEY_PASSPHRASE", "sesame")
    assert read_key(encrypted).fingerprint == read_key(plain).fingerprint == key.fingerprint
