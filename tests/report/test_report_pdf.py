import io
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from report import samples

from auditor.errors import EvidenceError, MissingPartError, SignatureError, UsageError
from auditor.evidence.bundle import Bundle
from auditor.report import pdf_worker
from auditor.report.html import render_html
from auditor.report.pdf import make_pdf
from auditor.report.pdf_check import check_pdf, check_pdf_bytes
from auditor.report.signer import SUBJECT, make_signer, pkcs12_signer, self_made_signer, sign_pdf

NOW = datetime.now(UTC)
SMALL_PAGE = b"<!DOCTYPE html><html lang='en'><head><title>t</title></head><body><p>text</p></body></html>"

needs_poppler = pytest.mark.skipif(shutil.which("pdfsig") is None, reason="poppler-utils is not installed")


@pytest.fixture(scope="module")
def signer():
    return make_signer(now=NOW)


@pytest.fixture(scope="module")
def made(signer):
    """Make the reports of an outcome once: (html, files, unsigned, signed)."""

    @cache
    def make(name):
        files = samples.bundle_files(name)
        given = samples.report_input(name, certificate_sha256=signer.certificate_sha256)
        html = render_html(given)
        results, seal = files["results.json"], files["seal/k.seal.json"]
        unsigned = make_pdf(html, results=results, seal=seal, issued_at=given.closed_at)
        return html, files, unsigned, sign_pdf(unsigned, signer)

    return make


@pytest.fixture(scope="module")
def case(made):
    return made("supported")


@pytest.fixture(params=["supported", "not-supported", "inconclusive"])
def signed_path(request, made, tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(made(request.param)[3])
    return path


def _check(case, pdf, signer, **changed):
    html, files, _, _ = case
    expected = {
        "html": html,
        "results": files["results.json"],
        "seal": files["seal/k.seal.json"],
        "certificate_pem": signer.certificate_pem,
    }
    return check_pdf_bytes(pdf, **{**expected, **changed})


def _bundle(folder, contents):
    return Bundle(folder=folder, contents=contents, entries={}, manifest=b"", manifest_envelope=b"")


def _tool(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_signed_report_checks_out(case, signer):
    assert signer.certificate_sha256[:16] in _check(case, case[3], signer)


@needs_poppler
def test_pdfinfo_sees_a_tagged_a4_file_of_few_pages(signed_path):
    info = dict(line.split(":", 1) for line in _tool("pdfinfo", signed_path).splitlines())
    assert info["Tagged"].strip() == "yes"
    assert info["JavaScript"].strip() == "no"
    assert "A4" in info["Page size"]
    assert 5 <= int(info["Pages"]) <= 9
    assert info["PDF version"].strip() == "1.7"


@needs_poppler
def test_every_font_is_embedded_and_bundled(signed_path):
    rows = _tool("pdffonts", signed_path).splitlines()[2:]
    assert {row.split()[0].split("+")[1] for row in rows} == {"Report-Sans", "Report-Sans-Bold", "Report-Mono"}
    assert all(row.split()[-5] == "yes" for row in rows)


@needs_poppler
def test_stock_tools_extract_the_results_unchanged(case, tmp_path):
    signed_path = tmp_path / "report.pdf"
    signed_path.write_bytes(case[3])
    assert "results.json" in _tool("pdfdetach", "-list", signed_path)
    _tool("pdfdetach", "-savefile", "results.json", "-o", tmp_path / "attached.json", signed_path)
    assert (tmp_path / "attached.json").read_bytes() == case[1]["results.json"]


@needs_poppler
def test_pdfsig_finds_the_signature_valid(signed_path):
    said = _tool("pdfsig", signed_path)
    assert "Signature is Valid" in said
    assert "Total document signed" in said
    assert "SHA-256" in said
    assert SUBJECT in said


@needs_poppler
def test_every_page_names_report_page_and_draft(signed_path):
    pages = _tool("pdftotext", "-layout", signed_path, "-").removesuffix("\f").split("\f")
    for number, page in enumerate(pages, start=1):
        foot = page.strip().splitlines()[-1]
        assert foot.strip().startswith("OA-")
        assert "DRAFT" in foot
        assert f"Page {number} of {len(pages)}" in foot


def test_pypdf_reads_attachments_relationship_and_conformance(case):
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(case[3]))
    assert reader.attachments["results.json"] == [case[1]["results.json"]]
    assert reader.attachments["k.seal.json"] == [case[1]["seal/k.seal.json"]]
    associated = {item.idnum: item.get_object()["/AFRelationship"] for item in reader.trailer["/Root"]["/AF"]}
    assert list(associated.values()) == ["/Data", "/Data"]
    metadata = reader.trailer["/Root"]["/Metadata"].get_data().decode("utf-8")
    assert 'pdfaid:part="3"' in metadata
    assert 'pdfaid:conformance="A"' in metadata
    assert reader.metadata.creation_date == datetime.fromisoformat(samples.report_input("supported").closed_at).replace(
        microsecond=0
    )


def test_the_signature_forbids_every_change_and_is_invisible(case):
    import pypdf

    root = pypdf.PdfReader(io.BytesIO(case[3])).trailer["/Root"]
    certification = root["/Perms"]["/DocMDP"]
    assert certification["/Reference"][0]["/TransformParams"]["/P"] == 1
    assert certification["/SubFilter"] == "/ETSI.CAdES.detached"
    field = root["/AcroForm"]["/Fields"][0].get_object()
    assert list(field["/Rect"]) == [0, 0, 0, 0]


@pytest.mark.parametrize("tail", [b"\n", b" ", b"%%EOF\n", b"\n1 0 obj\n<<>>\nendobj\n"])
def test_bytes_appended_after_signing_are_refused(case, signer, tail):
    with pytest.raises(EvidenceError):
        _check(case, case[3] + tail, signer)


def test_a_flipped_byte_anywhere_is_refused(case, signer):
    pdf = case[3]
    for place in range(11, len(pdf), len(pdf) // 60):
        flipped = pdf[:place] + bytes([pdf[place] ^ 0x01]) + pdf[place + 1 :]
        with pytest.raises(EvidenceError):
            _check(case, flipped, signer)


def test_a_cut_or_foreign_file_is_refused(case, signer):
    for data in (b"", b"%PDF-1.7\n", case[3][: len(case[3]) // 2], case[0], b"\x00" * 1000):
        with pytest.raises(EvidenceError):
            _check(case, data, signer)


def test_an_unsigned_report_is_refused(case, signer):
    with pytest.raises(SignatureError):
        _check(case, case[2], signer)


def test_another_certificate_is_refused_even_with_the_same_name(case):
    with pytest.raises(SignatureError):
        _check(case, case[3], make_signer(now=NOW))


@pytest.mark.parametrize("made_at", [NOW - timedelta(days=30 * 365), NOW + timedelta(days=100)])
def test_a_certificate_that_is_expired_or_not_yet_valid_is_refused(case, made_at):
    other = make_signer(now=made_at)
    with pytest.raises(SignatureError, match="certificate was valid"):
        _check(case, sign_pdf(case[2], other), other)


def test_files_that_differ_from_the_attachments_are_refused(case, signer):
    for changed in ({"results": b"{}\n"}, {"seal": b"{}\n"}, {"html": case[0] + b" "}):
        with pytest.raises(EvidenceError):
            _check(case, case[3], signer, **changed)


def test_a_second_signature_is_refused(case, signer):
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import fields, signers

    from auditor.report.signer import _simple_signer

    # Permissive, so that the first signature itself would not stand in the way.
    out = io.BytesIO()
    for number in (1, 2):
        source = io.BytesIO(case[2] if number == 1 else out.getvalue())
        out = io.BytesIO()
        meta = signers.PdfSignatureMetadata(
            field_name=f"S{number}", md_algorithm="sha256", subfilter=fields.SigSeedSubFilter.PADES
        )
        writer = IncrementalPdfFileWriter(source)
        signers.PdfSigner(meta, _simple_signer(signer)).sign_pdf(writer, output=out)
        with pytest.raises(SignatureError):
            _check(case, out.getvalue(), signer)


def test_the_bundle_form_needs_every_file(case, signer, tmp_path):
    html, files, _, signed = case
    contents = {
        **files,
        "report.html": html,
        "report.pdf": signed,
        "certs/report.crt.pem": signer.certificate_pem,
    }
    assert "entire file" in check_pdf(_bundle(tmp_path, contents))
    for name in ("report.pdf", "report.html", "certs/report.crt.pem"):
        without = {path: data for path, data in contents.items() if path != name}
        with pytest.raises(EvidenceError):
            check_pdf(_bundle(tmp_path, without))


def test_equal_input_gives_an_equal_pdf():
    made = [make_pdf(SMALL_PAGE, results=b"{}", seal=b"{}", issued_at="2026-11-22T10:00:00.000Z") for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.png", "file:///etc/hostname", "x.png"])
def test_a_page_that_asks_for_anything_outside_is_refused(address):
    page = SMALL_PAGE.replace(b"<p>", b'<img src="' + address.encode() + b'" alt="x"><p>')
    if address == "x.png":
        made = make_pdf(page, results=b"{}", seal=b"{}", issued_at="2026-11-22T10:00:00.000Z")
        assert made.startswith(b"%PDF")
        return
    with pytest.raises(MissingPartError, match=r"report.pdf was not made.*report.html is complete"):
        make_pdf(page, results=b"{}", seal=b"{}", issued_at="2026-11-22T10:00:00.000Z")


@pytest.mark.parametrize(("script", "message"), [
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
    ("import time; time.sleep(60)", "did not finish within"),
    ("raise SystemExit(0)", "ended with code 0"),
    ("raise RuntimeError('inside')", "ended with code 1"),
    (f"raise SystemExit({pdf_worker.EXIT_MISSING})", "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"),
])  # fmt: skip
def test_a_renderer_that_crashes_hangs_or_is_missing_costs_only_the_pdf(tmp_path, script, message):
    worker = tmp_path / "worker.py"
    worker.write_text(script)
    with pytest.raises(MissingPartError, match=message):
        make_pdf(
            SMALL_PAGE, results=b"{}", seal=b"{}", issued_at="2026-11-22T10:00:00.000Z", time_limit_s=3, worker=worker
        )


def test_missing_native_libraries_are_told_from_a_crash(tmp_path, monkeypatch, capsys):
    import sys

    (tmp_path / "job.json").write_text('{"issued": "2026-11-22T10:00:00.000Z", "attachments": []}')
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    assert pdf_worker.render(tmp_path) == pdf_worker.EXIT_MISSING


def test_the_self_made_signer_is_made_once_kept_private_and_labelled(tmp_path):
    folder = tmp_path / "home"
    first = self_made_signer(folder, now=NOW)
    assert self_made_signer(folder, now=NOW).certificate_sha256 == first.certificate_sha256
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate(first.certificate_pem)
    assert SUBJECT in certificate.subject.rfc4514_string().replace("\\", "")
    assert "identity not verified" in SUBJECT
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert not usage.key_cert_sign
    assert certificate.public_key().key_size == 3072
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    assert "PRIVATE" not in repr(first)


@pytest.mark.parametrize("lost", ["report.key.pem", "report.crt.pem"])
def test_half_a_signer_is_refused(tmp_path, lost):
    self_made_signer(tmp_path, now=NOW)
    (tmp_path / lost).unlink()
    with pytest.raises(UsageError, match="belong together"):
        self_made_signer(tmp_path, now=NOW)


def test_a_damaged_or_swapped_signer_is_refused(tmp_path, signer):
    self_made_signer(tmp_path, now=NOW)
    (tmp_path / "report.crt.pem").write_bytes(signer.certificate_pem)
    with pytest.raises(UsageError, match="do not belong together"):
        self_made_signer(tmp_path, now=NOW)
    (tmp_path / "report.key.pem").write_bytes(b"no key")
    with pytest.raises(UsageError, match="cannot be read"):
        self_made_signer(tmp_path, now=NOW)


def test_a_pkcs12_file_signs_and_its_passphrase_stays_out_of_errors(tmp_path, monkeypatch, case, signer):
    path = tmp_path / "mine.p12"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"me", signer.key, signer.certificate, None, BestAvailableEncryption(b"pw-1")
        )
    )
    monkeypatch.setenv("AUDITOR_P12_PASSPHRASE", "pw-1")
    assert "entire file" in _check(case, sign_pdf(case[2], pkcs12_signer(path)), signer)
    monkeypatch.setenv("AUDITOR_P12_PASSPHRASE", "pw-2")
    with pytest.raises(UsageError) as caught:
        pkcs12_signer(path)
    assert "pw-2" not in str(caught.value)
    with pytest.raises(UsageError):
        pkcs12_signer(tmp_path / "absent.p12")


def test_a_weak_or_unsuitable_key_is_refused(tmp_path, monkeypatch):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "ec.p12"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(b"me", key, certificate, None, BestAvailableEncryption(b"pw"))
    )
    monkeypatch.setenv("AUDITOR_P12_PASSPHRASE", "pw")
    with pytest.raises(UsageError, match="RSA key of at least 3072 bits"):
        pkcs12_signer(path)
