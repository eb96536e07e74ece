"""``auditor guard``: make and seal the secret parameters that guard a model's answers; the model is not changed."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.cli.drawing import public_randomness
from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.evidence.signing import SigningKey
    from auditor.guards.owner import CommittedGuard, GuardRecord

KEY_NAME = "owner.key.pem"
PUBLIC_NAME = "owner.pub.pem"


class ProbeChoice(StrEnum):
    """Where probes come from."""

    HELD_OUT = "held-out"
    MIXTURES = "mixtures"


def guard(
    model: Annotated[Path, typer.Argument(help="Folder or model.safetensors of the trained model; left as it is.")],
    data: Annotated[str, typer.Option("--data", help="Data set the model was trained on.")],
    clients: Annotated[str, typer.Option("--clients", help="Ids of the service's clients, separated by commas.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder for the results.")],
    mu: Annotated[float, typer.Option(help="Mean share of probability that is moved, up to 0.45.")] = 0.1,
    bits: Annotated[
        int | None,
        typer.Option(min=0, max=4, help="Secret projections; by default 1 with public randomness, 2 without."),
    ] = None,
    depth: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Second channel: relative change of the share by a drawn sign.")
    ] = 0.0,
    label_share: Annotated[
        float, typer.Option(min=0.0, max=0.005, help="Label channel: share of queries answered with a wrong class.")
    ] = 0.0,
    probes: Annotated[int, typer.Option(min=10, help="Probes that a suspect will be asked.")] = 500,
    pool: Annotated[
        int | None,
        typer.Option(
            min=10,
            help="Probes to seal; the judge's nonce picks those that are asked. Default: twice --probes, or as many "
            "as there are held-out pictures.",
        ),
    ] = None,
    probe_data: Annotated[
        ProbeChoice,
        typer.Option(help="Which probes; see auditor plan --scheme dynamarks. Mixtures are of two pictures."),
    ] = ProbeChoice.HELD_OUT,
    controls: Annotated[int, typer.Option(min=1, help="Ordinary control images.")] = 40,
    owner_key: Annotated[
        Path | None,
        typer.Option(help="Ed25519 key that signs the seal, PEM or PKCS#12.", show_default="a new one in --out"),
    ] = None,
    commit_only: Annotated[
        bool, typer.Option("--commit-only", help="Write k.commit.json and stop, until the randomness is known.")
    ] = False,
    commitment: Annotated[
        Path | None, typer.Option(help="Folder of an earlier --commit-only, to go on from with public randomness.")
    ] = None,
    beacon: Annotated[str | None, typer.Option(help="Value of a public beacon drawn later, in hex.")] = None,
    judge_nonce: Annotated[
        str | None, typer.Option(help="Value that a judge gave after receiving the commitment, in hex.")
    ] = None,
    randomness_file: Annotated[
        Path | None, typer.Option(help="RFC 3161 time-stamp token over k.commit.json, as a file.")
    ] = None,
    recipient: Annotated[
        list[str] | None, typer.Option(help="age recipient that k.npz is encrypted to; repeatable.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted --commitment, or AUDITOR_PASSPHRASE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print guard.record.json and nothing else.")] = False,
) -> None:
    """Draw and seal a guard for `auditor serve --guard`: one key per client, all from one committed secret.

    Probes, projections, thresholds, clean answers and client ids are committed to first; the tables of target classes
    are drawn from the seed together with the public randomness. Writes k.npz, k.seal.json, k.commit.json,
    guard.record.json and, unless --owner-key is given, owner.key.pem.
    """
    from auditor import casefile, datasets
    from auditor.cli import console
    from auditor.guard_keys import GuardSettings, ProbeData
    from auditor.guards.draft import read_draft, write_draft
    from auditor.guards.owner import COMMITMENT_NAME, GuardSizes, commit_guard, seal_guard
    from auditor.models import load_model
    from auditor.schemes.delivery import new_folder

    dataset = datasets.load(data)
    loaded = load_model(model)
    locks = casefile.locks(recipient or ())
    source, drawn = public_randomness(beacon=beacon, judge_nonce=judge_nonce, token=randomness_file)
    if (commit_only and (drawn or commitment is not None)) or (commitment is not None and not drawn):
        raise UsageError("--commit-only takes no randomness yet, and --commitment goes on with public randomness")
    chosen_bits = bits if bits is not None else 1 if drawn or commit_only else 2
    key = _signing_key(owner_key, commitment=commitment)
    folder = new_folder(out)
    if commitment is not None:
        committed = read_draft(commitment, key=key, unlocks=casefile.unlocks(identity))
    else:
        committed = commit_guard(
            model=loaded,
            dataset=dataset,
            clients=tuple(name.strip() for name in clients.split(",")),
            settings=GuardSettings(mu=mu, sigma=mu / 2, bits=chosen_bits, depth=depth, label_share=label_share),
            sizes=GuardSizes(n_probes=probes, n_pool=pool, n_controls=controls),
            seed=os.urandom(32),
            key=key,
            committed_at=_now(),
            probe_data=ProbeData(probe_data.value),
        )
    if owner_key is None and commitment is None:
        key.write_pem(folder / KEY_NAME)
    (folder / PUBLIC_NAME).write_bytes(key.public_pem())
    (folder / COMMITMENT_NAME).write_bytes(committed.envelope)
    if commit_only:
        write_draft(folder, committed, locks=locks)
        n_pool = len(committed.measured.reference)
        console.say(f"committed: {folder / COMMITMENT_NAME}; {committed.n_probes} probes of {n_pool} will be asked")
        return
    _check_kept(committed, clients=clients, data=data)
    record = seal_guard(
        folder, committed=committed, model=loaded, dataset=dataset, key=key, sealed_at=_now(), source=source,
        randomness=drawn, locks=locks,
    )  # fmt: skip
    _show(folder, record, probes=f"{committed.n_probes} of {len(committed.measured.reference)}", as_json=as_json)


def _signing_key(owner_key: Path | None, *, commitment: Path | None) -> "SigningKey":
    from auditor.cli.signing_keys import read_key
    from auditor.evidence.signing import SigningKey

    if owner_key is not None:
        return read_key(owner_key)
    return SigningKey.generate() if commitment is None else read_key(commitment / KEY_NAME)


def _check_kept(committed: "CommittedGuard", *, clients: str, data: str) -> None:
    if committed.data != data or committed.measured.clients != tuple(name.strip() for name in clients.split(",")):
        raise UsageError("data or clients are not those that were committed to")


def _now() -> str:
    from datetime import UTC, datetime

    from auditor.evidence.times import utc_text

    return utc_text(datetime.now(UTC))


def _show(folder: Path, record: "GuardRecord", *, probes: str, as_json: bool) -> None:
    from auditor.canonical import parse_object
    from auditor.cli import console
    from auditor.guards.owner import RECORD_NAME

    if as_json:
        console.print_json(parse_object((folder / RECORD_NAME).read_bytes(), what=RECORD_NAME))
        return
    rows = [
        ("test accuracy without guard", f"{record.accuracy_clean:.4f}"),
        ("test accuracy with guard", f"{record.accuracy_guarded:.4f}"),
        ("first classes changed", f"{record.changed_first_class} of {record.n_queries}"),
        ("mean L1 change of an answer", f"{record.mean_l1:.4f}"),
        ("largest L1 change", f"{record.largest_l1:.4f}"),
        ("probes that a suspect is asked, of the sealed pool", probes),
        ("cells of the table", str(record.n_cells)),
        ("cells whose target leads in the guard's own answers", f"{record.ranked_first:.3f}"),
    ]
    console.table("what the guard costs, measured on test images", ("figure", "value"), rows)
    console.say(f"written: {folder}")
