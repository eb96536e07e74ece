"""``auditor cosign``: a witness, a judge or the owner signs a finished bundle too."""

from pathlib import Path
from typing import Annotated

import typer

from auditor.evidence.acts import CosignerRole


def cosign(
    bundle: Annotated[Path, typer.Argument(help="Folder of the finished evidence bundle.")],
    key: Annotated[Path, typer.Option(help="Your Ed25519 key, PEM or PKCS#12; passphrase in AUDITOR_KEY_PASSPHRASE.")],
    role: Annotated[CosignerRole, typer.Option(help="In which role you sign.")],
    note: Annotated[str, typer.Option(help="What you saw or vouch for; signed with the rest.")] = "",
) -> None:
    """Add your signature to a bundle that checks out; changes nothing already written.

    It goes into a file of its own and is entered in the bundle's custody log. Give your key's fingerprint, printed
    here, to whoever is to check: `auditor check --witness-key`.
    """
    from auditor import __version__, casefile
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.errors import UsageError
    from auditor.evidence.acts import CommandAct
    from auditor.evidence.bundle import add_file, later_log, read_bundle
    from auditor.evidence.cosign import MAX_NOTE, Cosignature, cosignature_path, sign_cosignature
    from auditor.evidence.open_custody import object_event
    from auditor.evidence.times import utc_text

    if not bundle.is_dir():
        raise UsageError(f"{bundle}: no such folder")
    if len(note) > MAX_NOTE or not note.isprintable():
        raise UsageError(f"--note takes one line of at most {MAX_NOTE} printable characters")
    signer = read_key(key)
    _admit(bundle, role=role, fingerprint=signer.fingerprint)
    found = read_bundle(bundle)
    path = cosignature_path(signer.fingerprint)
    now = utc_text(casefile.utc_now())
    made = Cosignature(role=role, public=signer.public, note=note, signed_at=now, tool_version=__version__)
    signed = sign_cosignature(found.manifest, made, key=signer)
    try:
        add_file(bundle, path, signed)
    except FileExistsError as error:
        raise UsageError("this key has signed the bundle already") from error
    except OSError as error:
        raise UsageError(f"{bundle}: cannot be written to ({type(error).__name__})") from error
    event = object_event(CommandAct.COSIGNED, path=path, data=signed, at=now, by=role.value, note=note)
    head = later_log(bundle).add(event, key=signer)
    console.say(f"signed as {role.value}: {bundle / path}")
    console.say(f"your key's fingerprint: {signer.fingerprint}")
    console.say(f"custody head: {head}")


def _admit(bundle: Path, *, role: CosignerRole, fingerprint: str) -> None:
    """Refuse to sign a bundle that does not check out, or in a role that is not the key's."""
    from auditor.errors import EvidenceError, UsageError
    from auditor.evidence import manifest as paths
    from auditor.evidence.bundle_folder import read_file
    from auditor.evidence.check import CheckOutcome, check_bundle
    from auditor.evidence.cosign import role_problem
    from auditor.evidence.manifest import verify_manifest
    from auditor.evidence.signing import public_from_pem

    report = check_bundle(
        bundle, owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None
    )  # fmt: skip
    if not report.intact:
        failed = next(step for step in report.steps if step.outcome is CheckOutcome.FAIL)
        raise EvidenceError(f"not signed, the bundle does not check out: {failed.title}: {failed.detail}")
    endorsement = verify_manifest(
        read_file(bundle, paths.MANIFEST),
        read_file(bundle, paths.MANIFEST_ENVELOPE),
        examiner_public=public_from_pem(read_file(bundle, paths.EXAMINER_KEY), what=paths.EXAMINER_KEY),
    )
    problem = role_problem(role, fingerprint, endorsement)
    if problem:
        raise UsageError(problem)
