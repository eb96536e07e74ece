"""``auditor verify``: ask a suspect the sealed questions and hand over the evidence."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.evidence.panel import Panel
    from auditor.evidence.seal import Seal

DEFAULT_BATCH = 64
"""Questions per request where the user names no number."""


def verify(
    keyset: Annotated[Path, typer.Option("--keyset", help="Sealed key set, k.npz.")],
    endpoint: Annotated[str | None, typer.Option(help="Base URL of the suspect service.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Suspect as a local file: safetensors, onnx, skops, pt2, ts; or python:module:function."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="How the suspect is spoken to: name (see auditor profiles) or TOML file.")
    ] = None,
    allow_python: Annotated[
        bool, typer.Option("--allow-python", help="Run code that comes with the suspect: python:, .ts, .pt, .pt2.")
    ] = False,
    account: Annotated[str, typer.Option(help="Label of the account that asks, for the record; never a secret.")] = "",
    proxy: Annotated[
        str | None, typer.Option(help="Proxy to the endpoint; those of the environment are not used.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Spend at most this amount, at the price per query that the profile states.")
    ] = None,
    seal: Annotated[Path | None, typer.Option(help="k.seal.json as published; compared with the key set.")] = None,
    owner_key: Annotated[
        str | None, typer.Option(help="Fingerprint the owner's key must have (64 hex digits).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the evidence bundle.", show_default="audit-<UTC time>")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Tighten the sealed level of the claim.")] = None,
    max_queries: Annotated[int | None, typer.Option(help="Ask at most this many questions of any kind.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Questions per request.", show_default="64")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Requests to the endpoint at a time; the profile may permit fewer.")
    ] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait for one answer.")] = 30.0,
    judge_nonce: Annotated[
        str | None,
        typer.Option(help="Judge's nonce, 16 to 64 bytes in hex: draws which keys are asked, and in what order."),
    ] = None,
    reuse_keys: Annotated[
        bool, typer.Option("--reuse-keys", help="Ask keys although a suspect saw them before; recorded as deviation.")
    ] = False,
    panel: Annotated[
        Path | None, typer.Option(help="Record of `auditor panel`: how independent models answered these keys.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Learn what the suspect's labels mean from ordinary inputs, asked first: a data set's test part, "
            "npz:FILE, or FILE with arrays inputs and labels."
        ),
    ] = None,
    family: Annotated[
        int,
        typer.Option(min=1, help="Key sets and suspects examined in this matter, reported or not; divides the level."),
    ] = 1,
    ledger: Annotated[
        Path | None, typer.Option(help="Ledger of shown keys.", show_default="k.ledger.jsonl beside the key set")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted key set, or AUDITOR_PASSPHRASE.")
    ] = None,
    examiner: Annotated[str, typer.Option(help="Name of the examiner, for the record.")] = "",
    examiner_key: Annotated[
        Path | None,
        typer.Option(help="Ed25519 key that signs the evidence, PEM or PKCS#12.", show_default="one made on first use"),
    ] = None,
    tsa: Annotated[
        list[str] | None,
        typer.Option("--tsa", help="Address of a time authority for transcript, manifest and PDF; may be repeated."),
    ] = None,
    report_identity: Annotated[
        Path | None,
        typer.Option(
            help="PKCS#12 file that signs report.pdf.", show_default="a self-made certificate, labelled as such"
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the audit in this folder, which stopped: nothing answered is asked again."),
    ] = None,
    declarations: Annotated[
        Path | None,
        typer.Option(help="What you can declare beforehand, TOML; see `auditor report --declarations-template`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json on stdout and nothing else.")] = False,
) -> None:
    """Ask a suspect the sealed questions, decide, and write a signed evidence bundle.

    Exit code: 0 supported, 3 not supported, 4 inconclusive.
    """
    from dataclasses import replace

    from auditor import casefile
    from auditor.cli import console
    from auditor.cli.calibration import ordinary_inputs
    from auditor.cli.declared import brought_along
    from auditor.cli.signing_keys import read_key
    from auditor.errors import UsageError
    from auditor.evidence.ledger import ledger_path
    from auditor.resumption import inputs_charged, read_stopped
    from auditor.suspects import affordable, open_suspect
    from auditor.time_authority import TimeAuthorities

    authorities = TimeAuthorities(tsa or ())
    signing_key = None if examiner_key is None else read_key(examiner_key)
    seal_tokens = casefile.seal_tokens(keyset, seal=seal)
    if resume is not None and out not in (None, resume):
        raise UsageError("--resume goes on in its own folder; leave --out away")
    folder = resume or out or casefile.default_folder()
    nonce = casefile.nonce_bytes(judge_nonce, option="--judge-nonce")
    unlocks = casefile.unlocks(identity)
    opened = casefile.open_keyset(keyset, seal=seal, owner_fingerprint=owner_key, unlocks=unlocks)
    max_inputs = affordable(budget, profile=profile, max_queries=None)
    additions = brought_along(keyset, opened, declarations=declarations)
    kept = casefile.Ledger(path=ledger or ledger_path(keyset), opened=opened)
    stopped = None if resume is None else read_stopped(resume)
    ordinary = None if calibration is None else ordinary_inputs(calibration, opened)
    going_on = stopped is not None and stopped.transcript is not None
    permitted = max_queries if going_on else affordable(budget, profile=profile, max_queries=max_queries)
    if ordinary is not None and permitted is not None:
        permitted -= len(ordinary.inputs)
        if permitted < 1:
            raise UsageError(f"the limits permit nothing beyond the {len(ordinary.inputs)} inputs of the calibration")
    if stopped is not None and stopped.transcript is not None:
        asked = casefile.request_again(
            stopped,
            opened,
            alpha=alpha,
            max_queries=permitted,
            operator=examiner,
            judge_nonce=nonce,
            batch_size=batch_size,
            family=family,
            panel=None if panel is None else _read_panel(panel, opened.seal),
            calibration=calibration is not None,
        )
        batch_size = stopped.terms.batch_size
        if max_inputs is not None:
            max_inputs = max(0, max_inputs - inputs_charged(stopped.transcript))
    else:
        asked = casefile.request(opened, alpha=alpha, max_queries=permitted, operator=examiner, judge_nonce=nonce)
        asked = replace(asked, family=family, panel=None if panel is None else _read_panel(panel, opened.seal))
        asked = replace(asked, calibration=ordinary)
        asked = kept.admit(asked, reuse=reuse_keys)
    with (
        open_suspect(
            endpoint=endpoint,
            model=model,
            batch_size=batch_size or DEFAULT_BATCH,
            concurrency=concurrency,
            max_inputs=max_inputs,
            timeout_s=timeout,
            profile=profile,
            classes=opened.seal.spec.classes,
            account=account,
            proxy=proxy,
            allow_python=allow_python,
        ) as suspect,
        console.progress() as progress,
        kept.recording(folder),
    ):
        case = casefile.verify(
            opened=opened,
            suspect=suspect,
            folder=folder,
            request=asked,
            signer_file=report_identity,
            examiner=signing_key,
            seal_tokens=seal_tokens,
            authorities=authorities,
            progress=progress,
            resume=resume is not None,
            additions=additions,
        )
    if as_json:
        console.print_json(case.results)
    else:
        console.say(case.summary_line)
        if case.limits:
            console.say(case.limits)
        if profile is not None and (cost := _charged(profile, case.folder)):
            console.say(cost)
        console.say(f"evidence: {case.folder}  report: {case.folder / case.report_name}")
    raise typer.Exit(case.exit_code)


def _charged(profile: str, folder: Path) -> str:
    """Return in one line what the service may have charged, before a stop too; empty without a price."""
    from auditor.resumption import inputs_charged, read_stopped
    from auditor.suspects import price_of

    price, currency = price_of(profile)
    transcript = read_stopped(folder).transcript if price else None
    if transcript is None:
        return ""
    n_inputs = inputs_charged(transcript)
    return f"charged: at most {n_inputs * price}{currency}, {n_inputs} inputs at {price}{currency}"


def _read_panel(path: Path, seal: "Seal") -> "Panel":
    from auditor.errors import UsageError
    from auditor.evidence.panel import parse_panel

    if not path.is_file():
        raise UsageError(f"{path.name}: no such file")
    return parse_panel(path.read_bytes(), seal=seal)
