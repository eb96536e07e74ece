"""Revocation lists: beside what ``openssl verify -crl_check`` says about the same certificate and list."""

import subprocess
from datetime import UTC, datetime, timedelta

import authorities
import bundles
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from typer.testing import CliRunner

from auditor.errors import MalformedError
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.revocation import Revocation, look_up_chain, read_crls

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
STEP = 22


def a_crl(issuer, *serials, when=NOW - DAY, reason=None, made=NOW, critical=False):
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(made)
        .next_update(made + 30 * DAY)
    )
    if critical:
        builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256())


def pem(crl):
    return crl.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("chain"), direct=False, with_chain=True)


def look_up(authority, *crls, at=NOW - 2 * DAY):
    return look_up_chain(
        authority.signer.certificate, others=[authority.between.certificate], roots=authority.roots, crls=crls, at=at
    ).state


def test_the_verdict_on_a_certificate_is_that_of_openssl(authority, tmp_path):
    serial = authority.signer.certificate.serial_number
    for number, serials in enumerate([(), (serial,), (serial + 1,)]):
        crl = a_crl(authority.root, *serials)
        (tmp_path / f"{number}.pem").write_bytes(pem(crl))
        command = ["openssl", "verify", "-crl_check", "-CAfile", authority.root_path, "-CRLfile"]
        command += [tmp_path / f"{number}.pem", authority.folder / "tsa.pem"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        expected = Revocation.GOOD if done.returncode == 0 else Revocation.REVOKED
        assert ("certificate revoked" in done.stdout + done.stderr) is (expected is Revocation.REVOKED)
        assert look_up(authority, crl) is expected


@pytest.mark.parametrize(
    ("reason", "after", "expected"),
    [
        (None, False, Revocation.REVOKED),
        (x509.ReasonFlags.key_compromise, False, Revocation.REVOKED),
        (x509.ReasonFlags.superseded, False, Revocation.GOOD),
        (x509.ReasonFlags.cessation_of_operation, False, Revocation.GOOD),
        (x509.ReasonFlags.superseded, True, Revocation.REVOKED),
    ],
)
def test_tokens_from_before_a_harmless_revocation_stay_good(authority, reason, after, expected):
    crl = a_crl(authority.root, authority.signer.certificate.serial_number, reason=reason)
    assert look_up(authority, crl, at=NOW - DAY / 2 if after else NOW - 2 * DAY) is expected


def test_what_a_list_cannot_say(authority, chained):
    stranger = chained.root
    assert look_up(authority) is Revocation.UNKNOWN
    assert look_up(authority, a_crl(authority.root, made=NOW - 9 * DAY)) is Revocation.UNKNOWN
    assert look_up(authority, a_crl(authority.root, critical=True)) is Revocation.UNKNOWN
    assert look_up(authority, a_crl(stranger)) is Revocation.UNKNOWN
    forged = authorities.Party(certificate=authority.root.certificate, key=stranger.key)
    assert look_up(authority, a_crl(forged)) is Revocation.UNKNOWN


def test_every_certificate_below_the_root_is_looked_up(chained):
    leaf, between = a_crl(chained.between), a_crl(chained.root)
    assert look_up(chained, leaf) is Revocation.UNKNOWN
    assert look_up(chained, leaf, between) is Revocation.GOOD
    gone = a_crl(chained.root, chained.between.certificate.serial_number)
    assert look_up(chained, leaf, gone) is Revocation.REVOKED


def test_lists_are_read_in_both_forms(authority, chained):
    one, other = a_crl(authority.root), a_crl(chained.root)
    assert read_crls(pem(one) + pem(other), what="f") == (one, other)
    assert read_crls(one.public_bytes(serialization.Encoding.DER), what="f") == (one,)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"-----BEGIN X509 CRL-----\n", b"-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"]
)
def test_what_is_no_list_is_refused(data):
    with pytest.raises(MalformedError):
        read_crls(data, what="f")


@pytest.fixture(scope="module")
def stamped(authority, tmp_path_factory):
    def stamp(data):
        return (authority.stamp(data),)

    made = bundles.make_bundle(tmp_path_factory.mktemp("stamped") / "bundle", stamp=stamp)
    return made.folder


def step(folder, authority, *crls):
    report = check_bundle(
        folder, owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None,
        tsa_roots=authority.roots, crls=crls,
    )  # fmt: skip
    return report.steps[STEP - 1]


def test_the_step_of_a_bundle(stamped, authority):
    later = NOW + DAY
    serial = authority.signer.certificate.serial_number
    assert step(stamped, authority).outcome is CheckOutcome.NOT_CHECKED
    good = step(stamped, authority, a_crl(authority.root, made=later))
    assert good.outcome is CheckOutcome.PASS, good.detail
    assert "manifest.1.tsr: not revoked by the list of" in good.detail
    bad = step(stamped, authority, a_crl(authority.root, serial, made=later))
    assert bad.outcome is CheckOutcome.FAIL
    assert "revoked on" in bad.detail
    assert step(stamped, authority, a_crl(authority.between, made=later)).outcome is CheckOutcome.NOT_CHECKED


def test_the_option_takes_files(stamped, authority, tmp_path):
    from auditor.cli.app import app

    (tmp_path / "a.crl").write_bytes(pem(a_crl(authority.root, authority.signer.certificate.serial_number)))
    command = ["check", str(stamped), "--tsa-root", str(authority.root_path), "--crl"]
    assert CliRunner().invoke(app, [*command, str(tmp_path / "a.crl")]).exit_code == 5
    assert CliRunner().invoke(app, [*command, str(tmp_path / "none.crl")]).exit_code == 2
    (tmp_path / "b.crl").write_bytes(b"nothing")
    assert CliRunner().invoke(app, [*command, str(tmp_path / "b.crl")]).exit_code == 2
