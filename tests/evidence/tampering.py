"""Ways to tamper with a finished bundle, by strangers and by an examiner who signs everything again."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import authorities
import bundles
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditor.canonical import canonical_bytes, sha256_hex
from auditor.evidence import bundle as bundle_files
from auditor.evidence.acts import CommandAct, CosignerRole, HandAct
from auditor.evidence.bundle import add_file, certificate_digest, later_log
from auditor.evidence.bundle_folder import all_files, list_files
from auditor.evidence.cosign import Cosignature, cosignature_path, sign_cosignature
from auditor.evidence.declarations import Declarations, declarations_bytes, report_name
from auditor.evidence.issue import Issue, issued_path, sign_issue
from auditor.evidence.manifest import Endorsement, Entry, is_later, manifest_bytes, sign_manifest
from auditor.evidence.open_custody import OpenLog, new_event, object_event, signing_event
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import DOMAIN, read_transcript

PAGE = b"<!DOCTYPE html><html lang='en'><head><title>t</title></head><body><p>report</p></body></html>"
CUSTODY_DOMAIN = b"auditor/1 custody line\0"
SEAL_TOKEN, HEAD_TOKEN, MANIFEST_TOKEN = "seal/k.seal.1.tsr", "transcript.head.1.tsr", "manifest.1.tsr"
# The same key in every test process: its fingerprint is part of the names of tests.
WITNESS = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
COSIGNATURE = cosignature_path(WITNESS.fingerprint)
ISSUED = tuple(
    issued_path(2, name)
    for name in ("declarations.dsse.json", "report.html", "report.pdf", "report.crt.pem", "certificate-902.draft.html")
)
SUPERSEDED = "superseded/1.results.json"
LATER_LOG = "custody.later.jsonl"
SIGNED_AT = bundles.START + timedelta(hours=1)

Made = bundles.Made


OTHER_PAGE = PAGE.replace(b"report", b"another report")


def complete_bundle(folder: Path, authority: authorities.Authority, *, pdf: bool, other: bool = False) -> Made:
    """Make a bundle with every file a bundle of a trained mark may hold, those made over its manifest included.

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
    sheet = b"another" if other else b"one"
    for path in ("annexes/certificate-902.draft.html", "annexes/fre-702.html", SUPERSEDED):
        add_file(folder, path, b"<p>" + sheet + b"</p>\n")
    add_file(folder, "declarations.json", declarations_bytes(declared("", by=sheet.decode())))
    log = OpenLog(folder / "seal/k.custody.jsonl", anchor=sha256_hex(made.opened.envelope))
    log.add(new_event(HandAct.STORED, by="owner", note="", at="2026-11-02T00:00:00.000Z"), key=made.owner)
    sign_again(made)
    stamp_manifest(made, authority)
    add_later(made)
    return made


def declared(report: str, *, by: str) -> Declarations:
    """Return declarations in which every field is filled."""
    from auditor.evidence.declarations import FORM

    return Declarations(report=report, values={field.path: by for field in FORM} | {"declarations.date": "2026-11-22"})


def add_later(made: Made) -> None:
    """Let a witness sign and the examiner issue a revision of the report, each entered into the log."""
    folder, at = made.folder, "2026-11-22T12:00:00.000Z"
    manifest = (folder / "manifest.json").read_bytes()
    role = Cosignature(role=CosignerRole.WITNESS, public=WITNESS.public, note="", signed_at=at, tool_version="1.0.0")
    certificate = (folder / "certs/report.crt.pem").read_bytes()
    issue = Issue(
        revision=2,
        declarations=declared(report_name(sha256_hex((folder / "results.json").read_bytes())), by="A. Examiner"),
        previous_sha256="",
        report_certificate_sha256=certificate_digest(certificate),
        signed_at=at,
        tool_version="1.0.0",
    )
    pdf = (folder / "report.pdf").read_bytes()
    page, form = (sha256_hex(manifest + name).encode() for name in (b"page", b"form"))
    made_of_it = (sign_issue(manifest, issue, examiner=made.examiner), page, pdf, certificate, form)
    files = {COSIGNATURE: sign_cosignature(manifest, role, key=WITNESS), **dict(zip(ISSUED, made_of_it, strict=True))}
    for path, data in files.items():
        add_file(folder, path, data)
        act, key = (CommandAct.COSIGNED, WITNESS) if path == COSIGNATURE else (CommandAct.ISSUED, made.examiner)
        later_log(folder).add(object_event(act, path=path, data=data, at=at), key=key)


def drop_later(folder: Path) -> None:
    """Take away what was made over an earlier manifest, as an examiner does who signs another one in its place."""
    for path in sorted(all_files(folder)):
        if is_later(path):
            (folder / path).unlink()


def unsigned_pdf(folder: Path) -> bytes:
    """Return the bundle's report as an unsigned PDF."""
    from auditor.report.pdf import make_pdf

    results, seal = ((folder / name).read_bytes() for name in ("results.json", "seal/k.seal.json"))
    html = (folder / "report.html").read_bytes()
    return make_pdf(html, results=results, seal=seal, issued_at="2026-11-22T10:00:00.000Z")


def stamp_manifest(made: Made, authority: authorities.Authority) -> None:
    """Put a fresh time stamp over the manifest's signature."""
    moment = SIGNED_AT + timedelta(minutes=1)
    bundle_files.stamp_manifest(
        made.folder,
        examiner=made.examiner,
        clock=lambda: moment,
        stamp=lambda data: (authority.stamp(data, moment),),
    )


def sign_again(made: Made, *, examiner: SigningKey | None = None, signed_at: str = "2026-11-22T11:00:00.000Z") -> None:
    """List the folder as it stands and sign the list, with the examiner's key or another; claims stay as they were."""
    folder, examiner = made.folder, examiner or made.examiner
    drop_later(folder)
    data = {path: (folder / path).read_bytes() for path, _ in list_files(folder)}
    manifest = manifest_bytes({p: Entry(path=p, size=len(d), sha256=sha256_hex(d)) for p, d in data.items()})
    certificate, seal = data.get("certs/report.crt.pem"), data.get("seal/k.seal.json", b"")
    endorsement = Endorsement(
        owner_fingerprint=made.owner.fingerprint,
        examiner_fingerprint=examiner.fingerprint,
        seal_sha256=sha256_hex(seal),
        transcript_head=_head_of(data.get("transcript.jsonl", b"")),
        report_certificate_sha256=_certificate_of(certificate),
        signed_at=signed_at,
        tool_version="1.0.0",
    )
    (folder / "manifest.json").write_bytes(manifest)
    later = OpenLog(folder / LATER_LOG, anchor=sha256_hex(manifest))
    later.add(signing_event(manifest, at=endorsement.signed_at), key=examiner)
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
        (made.folder / name).unlink(missing_ok=True)
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
    """Change one bit in the middle of a file; in a certificate, one letter of its signature, so that it can be read."""
    data = bytearray(path.read_bytes())
    if path.name.endswith("crt.pem"):
        place = data.index(b"-----END") - 80
        data[place] = ord("A") if data[place] != ord("A") else ord("B")
    else:
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
