"""``auditor panel``: ask independently trained models the sealed keys, and record how they answered."""

from pathlib import Path
from typing import Annotated

import typer


def panel(
    models: Annotated[list[Path], typer.Argument(help="Independent models: folders or .safetensors files.")],
    keyset: Annotated[Path, typer.Option("--keyset", help="Sealed key set, k.npz.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("panel.json"),
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted key set, or AUDITOR_PASSPHRASE.")
    ] = None,
) -> None:
    """Ask independent models all keys and foreign patterns, for verify --panel.

    Models are asked on this machine; no key leaves it, and the ledger is not touched.
    """
    from auditor import casefile
    from auditor.analysis import basis_of
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.evidence.panel import Panel, PanelModel, member, panel_bytes
    from auditor.suspects import open_suspect

    if out.exists():
        raise UsageError(f"{out.name} exists; a panel record is never written over")
    opened = casefile.open_keyset(keyset, seal=None, owner_fingerprint=None, unlocks=casefile.unlocks(identity))
    basis = basis_of(opened.seal.protocol, opened.seal.spec)
    asked: list[PanelModel] = []
    with console.progress() as progress:
        progress.begin("asking independent models", len(models))
        for path in models:
            with open_suspect(model=path) as model:
                described = model.describe()
                found = member(basis, opened.keys.samples, model.query_all(opened.keys.inputs))
            asked.append(
                PanelModel(
                    name=path.name,
                    architecture=str(described.extra.get("architecture", "")),
                    seed=_seed(path),
                    weights_sha256=described.suspect.artefact_sha256,
                    answers=found,
                )
            )
            progress.advance()
        progress.end()
    digests = [model.weights_sha256 for model in asked]
    if len(set(digests)) != len(digests):
        raise UsageError("a model is named twice; equal weights are one model")
    if opened.seal.model_sha256 in digests:
        raise UsageError("the owner's model cannot be a member of the panel")
    out.write_bytes(panel_bytes(Panel(keyset_id=opened.seal.keyset_id, models=tuple(asked))))
    hits = [sum(outcome is True for outcome in model.answers.keys) for model in asked]
    console.say(f"{len(asked)} models, {min(hits)} to {max(hits)} hits of {opened.seal.protocol.n_keys} keys: {out}")


def _seed(path: Path) -> str:
    # The training record beside the model says its seed, where there is one; nothing rests on it.
    import json

    record = (path if path.is_dir() else path.parent) / "train.json"
    try:
        value = json.loads(record.read_text(encoding="utf-8")).get("seed", "") if record.is_file() else ""
    except (OSError, ValueError, AttributeError):
        return ""
    return str(value)[:40]
