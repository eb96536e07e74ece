"""The certificate of the PDF: a chain to the judge's own root, beside what ``openssl verify`` says about it."""

import dataclasses
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import authorities
import bundles
import pytest
import tampering
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from typer.testing import CliRunner

from auditor.errors import MalformedError, SignatureError
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.report.pdf_check import check_pdf
from auditor.report.signer import ReportSigner, make_signer, sign_pdf
from auditor.report.signer_path import signer_path

PASS, FAIL, NOT_CHECKED = CheckOutcome.PASS, CheckOutcome.FAIL, CheckOutcome.NOT_CHECKED
SIGNED = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
"""When the manifest states that it was signed."""
PDF, CHAIN, REVOCATION = "report.pdf", "certificate of the PDF", "revocation of certificates"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    """A root and an issuer below it."""
    return authorities.Authority(tmp_path_factory.mktemp("ca"), name="CA", eku=None)


def certified(ca, *, by="between", start=SIGNED - timedelta(days=30), days=3650, chain=True):
    """Return a signer whose certificate the root, or the issuer below it, signed."""
    party = authorities.issue("A. Examiner", issuer=getattr(ca, by), ca=False, start=start, days=days)
    between = (ca.between.certificate,) if chain and by == "between" else ()
    return ReportSigner(certificate=party.certificate, key=party.key, chain=between)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A bundle with a page, and the PDF of it that nobody signed yet."""
    made = bundles.make_bundle(tmp_path_factory.mktemp("plain") / "bundle", report=tampering.PAGE)
    return made, tampering.unsigned_pdf(made.folder)


@pytest.fixture
def sign(plain, tmp_path):
    """Return a function that signs the report as someone and the manifest over it as the examiner."""

    def act(signer, name="bundle"):
        made, unsigned = plain
        shutil.copytree(made.folder, tmp_path / name)
        own = dataclasses.replace(made, folder=tmp_path / name)
        (own.folder / "report.pdf").write_bytes(sign_pdf(unsigned, signer))
        (own.folder / "certs/report.crt.pem").write_bytes(signer.certificate_pem)
        tampering.sign_again(own)
        return own.folder

    return act


def steps(folder, *roots, crls=()):
    report = check_bundle(
        folder, owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=check_pdf,
        trust_roots=roots, signer_path=signer_path, crls=crls,
    )  # fmt: skip
    return {step.title: step for step in report.steps}


def openssl_accepts(tmp_path, signer, *roots):
    def write(name, certificates):
        (tmp_path / name).write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates))
        return tmp_path / name

    command = ["openssl", "verify", "-attime", f"{SIGNED.timestamp():.0f}", "-CAfile", write("roots.pem", roots)]
    if signer.chain:
        command += ["-untrusted", write("between.pem", signer.chain)]
    done = subprocess.run([*command, write("leaf.pem", [signer.certificate])], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize(
    ("how", "good"),
    [
        ({}, True),
        ({"by": "root"}, True),
        ({"chain": False}, False),
        ({"start": SIGNED - timedelta(days=60), "days": 30}, False),
        ({"start": SIGNED + timedelta(days=1)}, False),
        ({"by": "signer"}, False),
    ],
    ids=["through an issuer", "by the root", "issuer left out", "expired", "not valid yet", "issued by no authority"],
)
def test_the_chain_holds_where_openssl_says_so(ca, tmp_path, sign, how, good):
    signer = certified(ca, **how)
    assert openssl_accepts(tmp_path, signer, *ca.roots) is good
    found = steps(sign(signer), *ca.roots)
    # The PDF's own check looks at the present time too, as the time at which it was signed.
    assert found[CHAIN].outcome is (PASS if good else NOT_CHECKED if found[PDF].outcome is FAIL else FAIL), found[CHAIN]
    moment = SIGNED
    if good:
        assert "leads to a given root" in found[CHAIN].detail
        assert signer_path((tmp_path / "bundle/report.pdf").read_bytes(), signer.certificate, moment, ca.roots)
    else:
        with pytest.raises(SignatureError):
            signer_path((tmp_path / "bundle/report.pdf").read_bytes(), signer.certificate, moment, ca.roots)


def test_without_a_root_the_pdf_passes_and_its_chain_is_not_checked(ca, sign):
    found = steps(sign(certified(ca)))
    assert (found[PDF].outcome, found[CHAIN].outcome) == (PASS, NOT_CHECKED)
    assert "--trust-root" in found[CHAIN].detail


def test_under_another_root_the_pdf_passes_and_its_chain_fails(ca, sign, tmp_path):
    other = authorities.Authority(tmp_path / "other", name="CA", eku=None)
    found = steps(sign(certified(ca)), *other.roots)
    assert (found[PDF].outcome, found[CHAIN].outcome) == (PASS, FAIL)
    assert "no chain leads from it to a given root" in found[CHAIN].detail


def test_nothing_in_the_bundle_is_a_root(ca, sign):
    # The signature carries its own root along; the judge trusts another one.
    signer = dataclasses.replace(certified(ca), chain=(ca.between.certificate, ca.root.certificate))
    stranger = make_signer(now=SIGNED).certificate
    assert steps(sign(signer), stranger)[CHAIN].outcome is FAIL


def test_a_self_made_certificate_is_named_so_unless_the_judge_was_handed_it(ca, sign):
    signer = make_signer(now=SIGNED)
    folder = sign(signer)
    for roots in ((), ca.roots):
        found = steps(folder, *roots)
        assert (found[PDF].outcome, found[CHAIN].outcome) == (PASS, NOT_CHECKED)
        assert "self-made: nobody but its holder vouches" in found[CHAIN].detail
    found = steps(folder, signer.certificate)
    assert found[CHAIN].outcome is PASS
    assert "is itself a given root" in found[CHAIN].detail


def test_a_self_made_certificate_that_was_not_valid_fails_although_the_judge_was_handed_it(sign):
    signer = make_signer(now=SIGNED + timedelta(days=3))
    assert steps(sign(signer), signer.certificate)[CHAIN].outcome is not PASS


def revoking(issuer, *serials):
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(SIGNED + timedelta(hours=1)).next_update(SIGNED + timedelta(days=30))
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(SIGNED - timedelta(days=1))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256())


def test_lists_find_the_issuers_among_the_trusted_roots(ca, sign):
    signer = certified(ca)
    folder = sign(signer)
    clean = [revoking(ca.root), revoking(ca.between)]
    assert steps(folder, *ca.roots, crls=clean)[REVOCATION].outcome is PASS
    assert steps(folder, *ca.roots, crls=clean[:1])[REVOCATION].outcome is NOT_CHECKED
    assert steps(folder, crls=clean)[REVOCATION].outcome is NOT_CHECKED
    for issuer, certificate in ((ca.between, signer.certificate), (ca.root, ca.between.certificate)):
        found = steps(folder, *ca.roots, crls=[*clean, revoking(issuer, certificate.serial_number)])[REVOCATION]
        assert found.outcome is FAIL
        assert "revoked on" in found.detail


def test_what_is_no_signed_pdf_has_no_chain(ca):
    for pdf in (b"", b"%PDF-1.7\n"):
        with pytest.raises(MalformedError):
            signer_path(pdf, certified(ca).certificate, SIGNED, ca.roots)


def test_the_option_takes_files(ca, sign, tmp_path):
    from auditor.cli.app import app

    folder = sign(certified(ca))

    def run(*options):
        done = CliRunner().invoke(app, ["check", str(folder), "--json", *map(str, options)])
        return done.exit_code, {s["title"]: s["outcome"] for s in json.loads(done.stdout)["steps"]}[CHAIN]

    assert run() == (0, "NOT CHECKED")
    assert run("--trust-root", ca.root_path) == (0, "PASS")
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(make_signer(now=SIGNED).certificate_pem)
    assert run("--trust-root", stranger) == (5, "FAIL")
    assert run("--trust-root", stranger, "--trust-root", ca.root_path) == (0, "PASS")
    assert CliRunner().invoke(app, ["check", str(folder), "--trust-root", str(folder / "env.json")]).exit_code == 2
