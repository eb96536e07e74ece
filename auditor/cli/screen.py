"""``auditor screen``: what a key set looks like before it is sealed or used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from auditor.evidence.keyset import KeySet
    from auditor.evidence.panel import PanelModel
    from auditor.records import Answer
    from auditor.screening.detectors import Predict
    from auditor.screening.ordinary import Ordinary
    from auditor.screening.screen import Material

MISSED_EXIT = 8
MOST_LEAKED = 50


def screen(
    keyset: Annotated[Path, typer.Argument(help="Sealed key set, k.npz; with --foreign samples as for auditor seal.")],
    data: Annotated[
        str | None, typer.Option(help="Ordinary images: a data set or npz:FILE.", show_default="the sealed controls")
    ] = None,
    innocent: Annotated[
        list[Path] | None, typer.Option(help="Independent model, folder or .safetensors; may be repeated.")
    ] = None,
    panel: Annotated[Path | None, typer.Option(help="Record of `auditor panel`, instead of --innocent.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="The marked model, for the stability of its answers to changed keys.")
    ] = None,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="KEYSET holds samples of another tool that are not sealed yet.")
    ] = False,
    leaked: Annotated[
        int | None,
        typer.Option(min=0, help="Keys given to the detector that learns from some.", show_default="half, at most 50"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws ordinary images and leaked keys.")] = 0,
    max_auc: Annotated[float | None, typer.Option(help="Limit for detectors that were given no key.")] = None,
    max_innocent_rate: Annotated[
        float | None, typer.Option(help="Limit for the upper bound of innocent models' mean hit rate.")
    ] = None,
    min_stability: Annotated[
        float | None, typer.Option(help="Smallest share of keys that keep their answer under every change.")
    ] = None,
    min_bits: Annotated[float | None, typer.Option(help="Smallest capacity of the draw in bits.")] = None,
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted key set, or AUDITOR_PASSPHRASE.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the tables as a page, HTML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Screen a key set before its use: chance hits, stability, detectability, capacity.

    Also how near keys lie to ordinary images, and whether the drawn material re-derives. Everything happens on this
    machine; the ledger is not touched. Exit code 8: a limit given by an option is missed, or the generation does not
    re-derive.
    """
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.report.screening import render_page, tables
    from auditor.screening.screen import Limits
    from auditor.screening.screen import screen as run_screen
    from auditor.suspects import open_suspect

    limits = Limits(
        max_area=max_auc, max_innocent_rate=max_innocent_rate, min_stability=min_stability, min_bits=min_bits
    )
    if innocent and panel is not None:
        raise UsageError("--innocent asks models and --panel reads what some said; give one of them")
    if output is not None and output.exists():
        raise UsageError(f"{output.name} exists; nothing is written over")
    material = _foreign(keyset) if foreign else _sealed(keyset, identity)
    ordinary = _ordinary(material.keys, data, seed=seed)
    answers, predict = _innocents(material.keys, innocent or ())
    n_keys = material.protocol.n_keys
    if leaked is None:
        # Learning from leaked keys needs some for each fold, and ordinary images to tell them from.
        leaked = min(MOST_LEAKED, n_keys // 2) if data is not None else 0
    marked = None if model is None else open_suspect(model=model)
    try:
        found = run_screen(
            material,
            ordinary=ordinary,
            innocents=answers,
            panel=() if panel is None else _panel(panel, material),
            predict=predict,
            marked=None if marked is None else marked.query_all,
            leaked=leaked,
            seed=seed,
        )
    finally:
        if marked is not None:
            marked.close()
    missed = limits.missed(found)
    if output is not None:
        output.write_bytes(render_page(found, missed=missed))
    if as_json:
        console.print_json({**found.as_json(), "missed": list(missed)})
    else:
        for table in tables(found):
            console.table(table.title, table.columns, table.rows)
    for line in missed:
        console.warn(f"limit missed: {line}")
    if missed or found.broken:
        raise typer.Exit(MISSED_EXIT)


def _sealed(path: Path, identity: Path | None) -> "Material":
    from auditor import casefile
    from auditor.errors import UsageError
    from auditor.evidence.keyset import open_sealed
    from auditor.screening.screen import Material

    if not path.is_file():
        raise UsageError(f"{path.name}: no such file")
    opened = open_sealed(path, unlocks=casefile.unlocks(identity))
    return Material(keys=opened.keys, protocol=opened.seal.protocol, seal=opened.seal)


def _foreign(path: Path) -> "Material":
    from auditor.cli.seal import read_samples
    from auditor.evidence.imported import import_keys
    from auditor.screening.screen import Material

    found = read_samples(path)
    # The set is never sealed, so that its drawn name and order mean nothing.
    keys, protocol = import_keys(
        keys=found,
        shams=None,
        controls=None,
        classes=[str(number) for number in range(max(*found.natural, *found.expected, 1) + 1)],
        seed=bytes(32),
    )
    return Material(keys=keys, protocol=protocol, seal=None)


def _ordinary(keys: "KeySet", data: str | None, *, seed: int) -> "Ordinary":
    from auditor.screening.ordinary import from_controls, from_parts

    if data is None:
        return from_controls(keys)
    from auditor import datasets

    dataset = datasets.load(data)
    return from_parts(
        known=dataset.train, fresh=dataset.test, keys=keys, seed=seed, source=f"{dataset.name}: training and test part"
    )


def _innocents(
    keys: "KeySet", paths: "Sequence[Path]"
) -> "tuple[list[tuple[str, tuple[Answer, ...]]], Predict | None]":
    from auditor.records import SampleKind

    if not paths:
        return [], None
    from auditor.models import load_model, predict
    from auditor.suspects import open_suspect

    rows = [sample.index for sample in keys.samples if sample.kind is SampleKind.KEY]
    answers = []
    for path in paths:
        with open_suspect(model=path) as suspect:
            answers.append((path.name, suspect.query_all(keys.inputs[rows])))
    # The last one only, so that one of several can be left to the detector without telling it what the panel says.
    network = load_model(paths[-1]).network
    return answers, lambda inputs: predict(network, inputs)


def _panel(path: Path, material: "Material") -> "tuple[PanelModel, ...]":
    from auditor.errors import UsageError
    from auditor.evidence.panel import parse_panel

    if material.seal is None or not path.is_file():
        raise UsageError(f"{path.name}: --panel needs a sealed key set and the record of its panel")
    return parse_panel(path.read_bytes(), seal=material.seal).models
