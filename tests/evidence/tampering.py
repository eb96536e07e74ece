"""Ways to tamper with a finished bundle, by strangers and by an examiner who signs everything again."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import authorities
import bundles

from auditor.canonical import canonical_bytes, sha256_hex
from auditor.evidence import bundle as bundle_files
from auditor.evidence.bundle import certificate_digest, list_files
from auditor.evidence.manifest import Endorsement, Entry, manifest_bytes, sign_manifest
from auditor.evidence.signing import SigningKey
from auditor.evidence.token_files import add_beside
from auditor.evidence.transcript import DOMAIN, read_transcript

PAGE = b"<!DOCTYPE html><html lang='en'><head><title>t</title></head><body><p>report</p></body></html>"
CUSTODY_DOMAIN = b"auditor/1 custody line\0"
SEAL_TOKEN, HEAD_TOKEN, MANIFEST_TOKEN = "seal/k.seal.1.tsr", "transcript.head.1.tsr", "manifest.1.tsr"
SIGNED_AT = bundles.START + timedelta(hours=1)

Made = bundles.Made


OTHER_PAGE = PAGE.replace(b"report", b"another report")


def complete_bundle(folder: Path, authority: authorities.Authority, *, pdf: bool, other: bool = False) -> Made:
    """Make a bundle with every file a bundle may hold: time stamps over three files, report, signed PDF, certificate.

    Args:
        folder: a folder that does not exist yet.
        authority: gives all time stamps.
        pdf: make a real signed PDF, which takes seconds, and not a few bytes in its place.
        other: make the bundle of another matter: other keys, inputs, protocol, suspect, answers and report.
    """
    start = bundles.START
    moments = iter((start + timedelta(minutes=10), None))

    def stamp(data: bytes) -> tuple[bytes, ...]:
        moment = next(moments)
        return () if moment is None else (authority.stamp(data, moment),)

    made = bundles.make_bundle(
        folder,
        protocol=bundles.small_protocol(order_seed="5a" * 32) if other else None,
        spec=dataclasses.replace(bundles.protocols.SPEC, shape=(1, 2, 3)) if other else bundles.protocols.SPEC,
        stolen=not other,
        report=OTHER_PAGE if other else PAGE,
        stamp=stamp,
        stamp_seal=lambda data: (authority.stamp(data, start - timedelta(hours=1)),),
    )
    from auditor.report.signer import make_signer, sign_pdf

    signer = make_signer(now=datetime.now(UTC))
    (folder / "certs/report.crt.pem").write_bytes(signer.certificate_pem)
    (folder / "report.pdf").write_bytes(
        sign_pdf(unsigned_pdf(folder), signer) if pdf else b"%PDF-1.7\n" + signer.certificate_pem
    )
    sign_again(made)
    stamp_manifest(made, authority)
    return made


def unsigned_pdf(folder: Path) -> bytes:
    """Return the bundle's report as an unsigned PDF."""
    from auditor.report.pdf import make_pdf

    results, seal = ((folder / name).read_bytes() for name in ("results.json", "seal/k.seal.json"))
    html = (folder / "report.html").read_bytes()
    return make_pdf(html, results=results, seal=seal, issued_at="2026-11-22T10:00:00.000Z")


def stamp_manifest(made: Made, authority: authorities.Authority) -> None:
    """Put a fresh time stamp over the manifest's signature."""
    (made.folder / MANIFEST_TOKEN).unlink(missing_ok=True)
    signed = made.folder / "manifest.dsse.json"
    add_beside(signed, [authority.stamp(signed.read_bytes(), SIGNED_AT + timedelta(minutes=1))])


def sign_again(made: Made, *, examiner: SigningKey | None = None) -> None:
    """List the folder as it stands and sign the list, with the examiner's key or another; claims stay as they were."""
    folder, examiner = made.folder, examiner or made.examiner
    data = {path: (folder / path).read_bytes() for path, _ in list_files(folder)}
    manifest = manifest_bytes({p: Entry(path=p, size=len(d), sha256=sha256_hex(d)) for p, d in data.items()})
    certificate, seal = data.get("certs/report.crt.pem"), data.get("seal/k.seal.json", b"")
    endorsement = Endorsement(
        owner_fingerprint=made.owner.fingerprint,
        examiner_fingerprint=examiner.fingerprint,
        seal_sha256=sha256_hex(seal),
        transcript_head=_head_of(data.get("transcript.jsonl", b"")),
        report_certificate_sha256=_certificate_of(certificate),
        signed_at="2026-11-22T11:00:00.000Z",
        tool_version="1.0.0",
    )
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "manifest.dsse.json").write_bytes(sign_manifest(manifest, endorsement, examiner=examiner))


def _head_of(transcript: bytes) -> str:
    from auditor.errors import EvidenceError

    try:
        return read_transcript(transcript).head
    except EvidenceError:
        return "00" * 32


def _certificate_of(pem: bytes | None) -> str:
    from auditor.errors import EvidenceError

    try:
        return "" if pem is None else certificate_digest(pem)
    except EvidenceError:
        return "00" * 32


def sign_head_again(made: Made) -> None:
    """Sign the head of the transcript as it stands, without its former time stamp."""
    read_transcript((made.folder / "transcript.jsonl").read_bytes())
    for name in ("transcript.head.dsse.json", HEAD_TOKEN):
        (made.folder / name).unlink()
    bundle_files.write_head(made.folder, examiner=made.examiner, clock=lambda: bundles.START)


def all_signed_by(made: Made, stranger: SigningKey) -> Made:
    """Let a stranger pose as the examiner: key, head, custody and manifest carry the stranger's name."""
    posing = dataclasses.replace(made, examiner=stranger)
    (made.folder / "certs/examiner.pub.pem").write_bytes(stranger.public_pem())
    sign_head_again(posing)
    custody = made.folder / "custody.jsonl"
    custody.write_bytes(custody.read_bytes().replace(made.examiner.fingerprint.encode(), stranger.fingerprint.encode()))
    custody_follows(posing)
    sign_again(posing)
    return posing


def custody_follows(made: Made) -> None:
    """Let the custody log name the objects as they stand."""

    def change(lines: list[dict]) -> None:
        for line in lines:
            line["sha256"] = sha256_hex((made.folder / line["path"]).read_bytes())

    rechain(made.folder / "custody.jsonl", CUSTODY_DOMAIN, change)


def rechain(path: Path, domain: bytes, change: Callable[[list[dict]], None]) -> None:
    """Change the lines of a chained file and chain them again, so that only their content is wrong."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(lines)
    out, previous = b"", b""
    for number, line in enumerate(lines):
        previous = canonical_bytes({**line, "seq": number, "prev": hashlib.sha256(domain + previous).hexdigest()})
        out += previous + b"\n"
    path.write_bytes(out)


def rewrite_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a canonical JSON file and keep its spelling canonical."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(canonical_bytes(value) + b"\n")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def change_transcript(made: Made, change: Callable[[list[dict]], None]) -> None:
    """Change the transcript, chain it again and sign everything that depends on it again."""
    rechain(made.folder / "transcript.jsonl", DOMAIN, change)
    sign_head_again(made)
    custody_follows(made)
    sign_again(made)


def incremental_update(pdf: bytes) -> bytes:
    """Return a PDF with a page note added by a stock library's incremental update."""
    import io

    from pyhanko.pdf_utils import generic
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

    writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
    writer.root["/Changed"] = generic.pdf_string("afterwards")
    writer.update_root()
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()
