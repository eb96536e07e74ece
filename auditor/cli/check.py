"""``auditor check``: the judge's tool; re-derives every number of a bundle and believes none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli import check_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.x509 import Certificate, CertificateRevocationList

    from auditor.evidence.bundle import Bundle
    from auditor.evidence.check import CheckReport
    from auditor.evidence.generation import OpenKeySet
    from auditor.evidence.issue import Issue


def check(
    bundle: Annotated[Path, typer.Argument(help="Folder of the evidence bundle, or a zip file of it.")],
    owner_key: Annotated[
        str | None, typer.Option(help="Fingerprint of the owner's key, got from the owner (64 hex digits).")
    ] = None,
    examiner_key: Annotated[
        str | None, typer.Option(help="Fingerprint of the examiner's key, got from the examiner (64 hex digits).")
    ] = None,
    tsa_root: Annotated[
        list[Path] | None,
        typer.Option("--tsa-root", help="Root certificates of time authorities you trust, PEM; may be repeated."),
    ] = None,
    trust_root: Annotated[
        list[Path] | None,
        typer.Option("--trust-root", help="Root certificates you trust for who signed the PDF, PEM; may be repeated."),
    ] = None,
    crl: Annotated[
        list[Path] | None,
        typer.Option("--crl", help="Revocation list of an authority, PEM or DER; may be repeated. None is fetched."),
    ] = None,
    keyset: Annotated[
        Path | None, typer.Option("--keyset", help="k.npz, if you may hold it: its generation is then repeated.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted key set, or AUDITOR_PASSPHRASE.")
    ] = None,
    judge_nonce: Annotated[str | None, typer.Option(help="The nonce you gave as judge, in hex.")] = None,
    drawn_with: Annotated[
        str | None,
        typer.Option(
            "--drawn-with", help="With --keyset: the value you gave for the draw, or the beacon's of that day, in hex."
        ),
    ] = None,
    witness_key: Annotated[
        list[str] | None,
        typer.Option("--witness-key", help="Fingerprint of a key that must have signed too; may be repeated."),
    ] = None,
    custody_head: Annotated[
        str | None,
        typer.Option("--custody-head", help="Head of the later custody log, as noted when an entry was added."),
    ] = None,
    render: Annotated[bool, typer.Option("--render", help="Render report.html again and check report.pdf.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Treat steps that were not checked as failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Re-check an evidence bundle offline, from the raw answers up.

    Exit code: 0 intact (and, with --strict, every step checked), 5 otherwise.
    """
    from auditor.casefile import nonce_bytes
    from auditor.errors import UsageError
    from auditor.evidence.check import check_bundle

    if not bundle.exists():
        raise UsageError(f"{bundle}: no such folder")
    roots = check_inputs.roots(tsa_root)
    with _folder_of(bundle) as folder:
        report = check_bundle(
            folder,
            owner_fingerprint=check_inputs.fingerprint(owner_key, option="--owner-key"),
            examiner_fingerprint=check_inputs.fingerprint(examiner_key, option="--examiner-key"),
            render_html=_render_html if render else None,
            check_pdf=(lambda found: _check_pdf(found, roots)) if render else None,
            check_issued=(lambda found, issue: _check_issued(found, issue, roots)) if render else None,
            tsa_roots=roots,
            open_keyset=_opener(keyset, identity),
            judge_nonce=None if judge_nonce is None else nonce_bytes(judge_nonce, option="--judge-nonce"),
            drawn_with=None if drawn_with is None else nonce_bytes(drawn_with, option="--drawn-with"),
            witness_fingerprints=check_inputs.fingerprints(witness_key, option="--witness-key"),
            custody_head=check_inputs.fingerprint(custody_head, option="--custody-head"),
            trust_roots=check_inputs.roots(trust_root),
            signer_path=_signer_path,
            crls=[found for path in crl or () for found in _crls(path)],
        )
    good = report.complete if strict else report.intact
    if as_json:
        _print_json(report, good=good)
    else:
        _print_table(report, good=good)
    raise typer.Exit(0 if good else 5)


@contextmanager
def _folder_of(bundle: Path) -> Iterator[Path]:
    if not bundle.is_file():
        yield bundle
        return
    from tempfile import TemporaryDirectory

    from auditor.evidence.zipped import unpack_bundle

    with TemporaryDirectory(prefix="auditor-check-") as name:
        unpack_bundle(bundle, Path(name))
        yield Path(name)


def _opener(keyset: Path | None, identity: Path | None) -> "OpenKeySet | None":
    from auditor import casefile
    from auditor.errors import UsageError
    from auditor.evidence.keyset import OpenedKeySet, open_sealed

    if keyset is None:
        return None
    if not keyset.is_file():
        raise UsageError(f"{keyset.name}: no such file")
    path, unlocks = keyset, casefile.unlocks(identity)

    def open_it(seal_envelope: bytes) -> OpenedKeySet:
        return open_sealed(path, seal_envelope=seal_envelope, unlocks=unlocks)

    return open_it


def _render_html(bundle: "Bundle") -> bytes:
    from auditor.errors import SealError
    from auditor.evidence.manifest import ANNEXES
    from auditor.report.annexes import render_annexes
    from auditor.report.html import render_again
    from auditor.report.inputs import from_files

    page = render_again(bundle.contents)
    if any(path in bundle.contents for path in ANNEXES):
        for path, data in render_annexes(from_files(bundle.contents)).items():
            if path in bundle.contents and bundle.contents[path] != data:
                raise SealError(f"{path} differs from what this version renders from the evidence")
    return page


def _check_issued(bundle: "Bundle", issue: "Issue", roots: "Sequence[Certificate]") -> str:
    from auditor.report.issued import check_issued

    return check_issued(bundle, issue, tsa_roots=roots)


def _check_pdf(bundle: "Bundle", roots: "Sequence[Certificate]") -> str:
    from auditor.report.pdf_check import check_pdf

    return check_pdf(bundle, tsa_roots=roots)


def _signer_path(
    pdf: bytes, certificate: "Certificate", moment: "datetime", roots: "Sequence[Certificate]"
) -> "Sequence[Certificate]":
    from auditor.report.signer_path import signer_path

    return signer_path(pdf, certificate, moment, roots)


def _crls(path: Path) -> "tuple[CertificateRevocationList, ...]":
    from auditor.errors import MalformedError, UsageError
    from auditor.evidence.revocation import MAX_CRL_BYTES, read_crls

    try:
        with path.open("rb") as file:
            return read_crls(file.read(MAX_CRL_BYTES + 1), what=path.name)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    except MalformedError as error:
        raise UsageError(str(error)) from error


def _print_table(report: "CheckReport", *, good: bool) -> None:
    from auditor.cli import console
    from auditor.evidence.check import CheckOutcome

    rows = [(f"{step.number}", step.title, step.outcome.value, step.detail) for step in report.steps]
    console.table("check", ("step", "what", "outcome", "detail"), rows)
    left = sum(step.outcome is CheckOutcome.NOT_CHECKED for step in report.steps)
    state = "intact" if report.intact else "BROKEN"
    note = "" if good or not report.intact else " (--strict)"
    console.say(f"{state}: {left} of {len(report.steps)} steps not checked{note}")


def _print_json(report: "CheckReport", *, good: bool) -> None:
    from auditor.cli import console

    console.print_json(
        {
            "schema": "mlaudit.check/1",
            "intact": report.intact,
            "complete": report.complete,
            "accepted": good,
            "steps": [
                {"number": step.number, "title": step.title, "outcome": step.outcome.value, "detail": step.detail}
                for step in report.steps
            ],
        }
    )
