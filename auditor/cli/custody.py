"""``auditor custody``: who held a key set or a bundle, and when."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.evidence.acts import HandAct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from auditor.canonical import JsonValue
    from auditor.evidence.custody import CustodyEvent
    from auditor.evidence.open_custody import LaterEvent, OpenLog

custody = typer.Typer(no_args_is_help=True, help="Enter and show who held a key set or a bundle, and when.")


@custody.command("add")
def add(
    target: Annotated[Path, typer.Argument(help="Folder of a finished bundle, or k.npz or k.seal.json of a key set.")],
    event: Annotated[HandAct, typer.Option(help="What happened.")],
    by: Annotated[str, typer.Option(help="Name of who acted.")],
    note: Annotated[str, typer.Option(help="To or from whom, where, why.")] = "",
    key: Annotated[Path | None, typer.Option(help="Ed25519 key that signs the entry, PEM or PKCS#12.")] = None,
) -> None:
    """Append one entry to the hash-chained custody log of a bundle or key set.

    Note the printed head elsewhere: with it `auditor check --custody-head` finds out if entries were cut off later.
    """
    from auditor import casefile
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.evidence.open_custody import new_event
    from auditor.evidence.times import utc_text

    entry = new_event(event, by=by, note=note, at=utc_text(casefile.utc_now()))
    signer = None if key is None else read_key(key)
    head = _log(target).add(entry, key=signer)
    console.say(f"entered{'' if signer else ', unsigned'}; custody head: {head}")


@custody.command("show")
def show(
    target: Annotated[Path, typer.Argument(help="Folder of a bundle, or k.npz or k.seal.json of a key set.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Show all custody entries after verifying their chains and signatures; exit code 5 when one is broken."""
    from auditor.cli import console

    entries = _of_the_audit(target) if target.is_dir() else []
    found = _log(target).read()
    entries += [_later(event) for event in found.events] if found else []
    head = found.head if found else ""
    if as_json:
        console.print_json({"schema": "mlaudit.custody/1", "head": head, "entries": entries})
        return
    columns = ("at", "act", "by", "note", "signer")
    rows = [tuple(_short(str(entry[name])) or "–" for name in columns) for entry in entries]
    console.table("custody", ("when", "what", "by", "about", "signed by"), rows)
    console.say(f"custody head: {head or 'none yet'}")


def _log(target: Path) -> "OpenLog":
    from auditor.canonical import sha256_hex
    from auditor.errors import UsageError
    from auditor.evidence.bundle import later_log
    from auditor.evidence.keyset import read_sealed
    from auditor.evidence.open_custody import OpenLog, keyset_log_path
    from auditor.evidence.seal import open_seal

    if target.is_dir():
        return later_log(target)
    if not target.is_file():
        raise UsageError(f"{target}: no such file or folder")
    envelope = target.read_bytes() if target.suffix == ".json" else read_sealed(target).envelope
    open_seal(envelope)
    return OpenLog(keyset_log_path(target), anchor=sha256_hex(envelope))


def _of_the_audit(bundle: Path) -> "list[dict[str, JsonValue]]":
    """Return what the manifest covers: the key set's log up to the audit, and the audit's own events."""
    from auditor.canonical import sha256_hex
    from auditor.evidence import manifest as paths
    from auditor.evidence.bundle_folder import read_file
    from auditor.evidence.custody import read_custody
    from auditor.evidence.open_custody import read_log

    entries: list[dict[str, JsonValue]] = []
    if (bundle / paths.KEYSET_CUSTODY).is_file():
        anchor = sha256_hex(read_file(bundle, paths.SEAL))
        log = read_log(read_file(bundle, paths.KEYSET_CUSTODY), anchor=anchor, what=paths.KEYSET_CUSTODY)
        entries += [_later(event) for event in log.events]
    entries += _audit(read_custody(read_file(bundle, paths.CUSTODY)))
    return sorted(entries, key=lambda entry: str(entry["at"]))


def _later(event: "LaterEvent") -> "dict[str, JsonValue]":
    about = " ".join(text for text in (event.path, event.note) if text)
    return {"at": event.at, "act": event.act.value, "by": event.by, "note": about, "signer": event.signer}


def _audit(events: "Iterable[CustodyEvent]") -> "list[dict[str, JsonValue]]":
    return [
        {"at": event.at, "act": event.act.value, "by": event.actor, "note": event.path, "signer": ""}
        for event in events
    ]


def _short(text: str) -> str:
    return " ".join(f"{word[:16]}…" if len(word) >= 64 else word for word in text.split(" "))
