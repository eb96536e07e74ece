"""The PDF in the tamper matrix: the examiner signs the manifest again after each change; the PDF step must see it."""

import dataclasses
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import authorities
import bundles
import pytest
import tampering
from tampering import PAGE, Made

from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.report.pdf import make_pdf
from auditor.report.pdf_check import check_pdf
from auditor.report.signer import make_signer, sign_pdf

PDF, CERTIFICATE = "report.pdf", "certs/report.crt.pem"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("tsa"), start=bundles.START - timedelta(days=30))


@pytest.fixture(scope="module")
def original(tmp_path_factory, authority):
    return tampering.complete_bundle(tmp_path_factory.mktemp("pdf") / "bundle", authority, pdf=True)


@pytest.fixture(scope="module")
def another(tmp_path_factory, authority):
    return tampering.complete_bundle(tmp_path_factory.mktemp("pdf2") / "bundle", authority, pdf=True, other=True)


@pytest.fixture
def made(original, tmp_path):
    shutil.copytree(original.folder, tmp_path / "bundle")
    return dataclasses.replace(original, folder=tmp_path / "bundle")


def failures(made: Made, authority: authorities.Authority, *, page: bytes = PAGE) -> list[str]:
    report = check_bundle(
        made.folder,
        owner_fingerprint=made.owner.fingerprint,
        examiner_fingerprint=made.examiner.fingerprint,
        render_html=lambda bundle: page,
        check_pdf=lambda bundle: check_pdf(bundle, tsa_roots=authority.roots),
        tsa_roots=authority.roots,
    )
    return [step.title for step in report.steps if step.outcome is CheckOutcome.FAIL]


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Made, Made], None]:
    def act(made: Made, another: Made) -> None:
        path = made.folder / name
        path.write_bytes(change(path.read_bytes()))

    return act


def take(*names: str) -> Callable[[Made, Made], None]:
    def act(made: Made, another: Made) -> None:
        for name in names:
            shutil.copy(another.folder / name, made.folder / name)

    return act


def strip_signature(made: Made, another: Made) -> None:
    (made.folder / PDF).write_bytes(tampering.unsigned_pdf(made.folder))


def sign_by_stranger(made: Made, another: Made) -> None:
    stranger = make_signer(now=datetime.now(UTC))
    (made.folder / PDF).write_bytes(sign_pdf(tampering.unsigned_pdf(made.folder), stranger))


def attach_other_results(made: Made, another: Made) -> None:
    """The certificate follows, so that only the attachments tell."""
    signer = make_signer(now=datetime.now(UTC))
    seal = (made.folder / "seal/k.seal.json").read_bytes()
    forged = make_pdf(PAGE, results=b"{}\n", seal=seal, issued_at="2026-11-22T10:00:00.000Z")
    (made.folder / PDF).write_bytes(sign_pdf(forged, signer))
    (made.folder / CERTIFICATE).write_bytes(signer.certificate_pem)


def middle_flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def signature_flipped(pem: bytes) -> bytes:
    # The last byte belongs to the issuer's signature: what is left is still a certificate that can be read. A flip
    # anywhere else may make it unreadable, and then an earlier step fails.
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    return ssl.DER_cert_to_PEM_cert(der[:-1] + bytes([der[-1] ^ 1])).encode()


ACTS: dict[str, Callable[[Made, Made], None]] = {
    "changed byte": edit(PDF, middle_flipped),
    "bytes appended": edit(PDF, lambda data: data + b"\n"),
    "object appended": edit(PDF, lambda data: data + b"\n9 0 obj\n<<>>\nendobj\n%%EOF\n"),
    "incremental update": edit(PDF, tampering.incremental_update),
    "cut": edit(PDF, lambda data: data[:-100]),
    "emptied": edit(PDF, lambda data: b""),
    "signature stripped": strip_signature,
    "signed by a stranger": sign_by_stranger,
    "other results attached": attach_other_results,
    "swapped with another bundle's": take(PDF),
    "swapped together with its certificate": take(PDF, CERTIFICATE),
    "certificate changed": edit(CERTIFICATE, signature_flipped),
    "certificate swapped": take(CERTIFICATE),
    "certificate removed": lambda made, another: (made.folder / CERTIFICATE).unlink(),
}


def test_the_untouched_bundle_passes(made, authority):
    assert failures(made, authority) == []


@pytest.mark.parametrize("name", ACTS)
def test_only_the_step_of_the_pdf_fails(made, another, authority, name):
    ACTS[name](made, another)
    tampering.sign_again(made)
    tampering.stamp_manifest(made, authority)
    assert failures(made, authority) == ["report.pdf"]


def test_a_pdf_of_another_page_fails(made, authority):
    """report.html and its rendering agree, so only the identifier ties the PDF to the page."""
    page = PAGE.replace(b"report", b"another")
    (made.folder / "report.html").write_bytes(page)
    tampering.sign_again(made)
    tampering.stamp_manifest(made, authority)
    assert failures(made, authority, page=page) == ["report.pdf"]
