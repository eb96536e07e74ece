"""Thieves who know the scheme, but not the secret: what removes a mark, what hides it, and what that costs them.

    python benchmarks/thieves.py run --schemes new-label --seeds 1 2 3                   (resumable; keeps each trial)
    python benchmarks/thieves.py run --schemes margin --arch small-cnn --seeds 1 2 3
    python benchmarks/thieves.py run --data fashion-mnist --schemes margin --arch small-cnn --seeds 1 2
    python benchmarks/thieves.py render                                                  (writes benchmarks/thieves.md)

Digits: the owner's model is the multi-layer perceptron unless ``--arch`` takes another; it is trained on the training
images. The thief has one half of the test images with labels, the other half measures task accuracy. Fashion-MNIST: the
owner has 28,000 training images, the thief 15,000 others with labels, and the test images measure. Every suspect
answers with labels and is audited as ``auditor verify`` does it, up to the verdict. One line of
`benchmarks/results/thieves.trials.jsonl` is one suspect; what is there is not run again.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep, kept_lines

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "thieves.trials.jsonl"
PAGE = HERE / "thieves.md"
NOTES = HERE / "thieves.notes.md"
EPOCHS = {"epochs": 10, "batch_size": 64, "learning_rate": 0.01, "threads": 1}
MODEL_ATTACKS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "unlearn: drop the extra output": ("unlearn", "drop", {}),
    "unlearn: relabel noisy copies": ("unlearn", "relabel", {}),
    "unlearn: drop and relabel": ("unlearn", "drop-relabel", {"beta": 0.4}),
    "invert the trigger once": ("invert", "once", {}),
    "invert the trigger thrice": ("invert", "thrice", {}),
    "prune 80 %, train on": ("prune", "global-80-tuned", {}),
    "adversarial training": ("adversarial", "grey", {**EPOCHS, "steps": 3}),
    "extract, probabilities": ("extract", "soft", {}),
    "extract, labels": ("extract", "hard", {}),
    "extract, confident answers only": ("extract", "filtered", {}),
    "extract, smoothed labels": ("extract", "smoothed", {}),
    "majority of three": ("ensemble", "outvoted", {}),
}
FALSE_ALARMS = 0.05
FORMAT = 2
"""Raised when owners are made in another way, so that lines of before are not taken for lines of now."""
SPLIT_SEED, N_OWNER, N_THIEF = 20, 28_000, 15_000
"""Of Fashion-MNIST, as in benchmarks/margin.py."""
N_ORDINARY = 2_500
PACE: dict[str, dict[str, Any]] = {
    "digits": {},
    "fashion-mnist": {"batch_size": 256, "threads": 1},
}
"""What attacks take instead of their presets, which are meant for small data sets."""
AFTERWARDS, FROM_NOTHING = {"epochs": 3, "learning_rate": 0.04}, {"epochs": 6, "learning_rate": 0.2}


@dataclass(frozen=True, kw_only=True)
class World:
    """One owner, one thief."""

    scheme: str
    seed: int
    data_name: str
    arch: str
    opened: Any
    stolen: Any
    data: Any
    own: Any
    """The thief's labelled images."""
    ordinary: Any
    """Images that the thief sets its cut-off on."""


def parties(data: str) -> tuple[Any, Any]:
    """Return the owner's data set, and what the thief has and is judged on."""
    from auditor import datasets
    from auditor.attacks.base import AttackData, half_test

    dataset = datasets.load(data)
    if data == "digits":
        return dataset, half_test(dataset.test)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(dataset.train))
    stolen = dataset.train.take(order[N_OWNER : N_OWNER + N_THIEF])
    owner = replace(dataset, train=dataset.train.take(order[:N_OWNER]))
    return owner, AttackData(own=stolen, evaluation=dataset.test)


def make_world(scheme_name: str, seed: int, data: str, arch: str) -> World:
    from auditor.canonical import sha256_hex
    from auditor.draws import Secret
    from auditor.evidence.keyset import open_sealed
    from auditor.evidence.seal import RandomnessSource
    from auditor.evidence.signing import SigningKey
    from auditor.models import LoadedModel
    from auditor.schemes.base import LabelCode, pattern_scheme
    from auditor.schemes.carriers import default_sizes
    from auditor.schemes.delivery import deliver
    from auditor.schemes.embedding import RECIPES as PATTERNS
    from auditor.schemes.embedding import train_twin
    from auditor.schemes.margin import RECIPES, Margin, PlainTrigger
    from auditor.schemes.owner import commit, train_owner

    dataset, thief = parties(data)
    if scheme_name in ("new-label", "wrong-label"):
        recipe = PATTERNS[data]
        scheme: Any = pattern_scheme(scheme_name, replace(recipe.settings, label_code=LabelCode.AUTO))
        plan, n_keys = recipe.plan, 100
    else:
        triggers = RECIPES[data]
        scheme = {"margin": Margin, "plain-trigger": PlainTrigger}[scheme_name](triggers.settings)
        plan, n_keys = triggers.plan, triggers.n_keys
    plan = replace(plan, seed=seed, threads=1)
    owner_seed, nonce = (bytes.fromhex(sha256_hex(f"thieves {word} {seed}".encode())) for word in ("seed", "nonce"))
    # The draw follows from the commitment's bytes: key and date are the same in every repetition.
    key = SigningKey.from_seed(bytes.fromhex(sha256_hex(f"thieves key {seed}".encode())))
    sizes = default_sizes(randomness=True, scheme=scheme, n_keys=n_keys)
    when = "2026-01-01T00:00:00.000Z"
    twin = train_twin(dataset=dataset, plan=plan, architecture=arch)
    committed = commit(
        scheme=scheme, dataset=dataset, seed=owner_seed, sizes=sizes, key=key, committed_at=when, twin=twin
    )
    owned = train_owner(
        scheme=scheme, dataset=dataset, secret=Secret(owner_seed, nonce), plan=plan, architecture=arch,
        committed=committed, randomness=nonce, twin=twin,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        deliver(Path(name), result=owned, plan=plan, key=key, sealed_at=when, source=RandomnessSource.NONCE)
        opened = open_sealed(Path(name) / "k.npz")
    if data == "digits":
        own, ordinary = thief.own.halves()
    else:
        own, ordinary = (thief.own.take(np.arange(first, first + N_ORDINARY)) for first in (0, N_ORDINARY))
    stolen = LoadedModel(network=owned.network, description=owned.description)
    return World(
        scheme=scheme_name, seed=seed, data_name=data, arch=arch, opened=opened, stolen=stolen, data=thief, own=own,
        ordinary=ordinary,
    )  # fmt: skip


def audited(world: World, answer: Callable[[Any], Any], refuses: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """Return the verdict on a function from images to scores; refused questions get no answer."""
    from auditor import casefile
    from auditor.audit import Request, run_audit
    from auditor.errors import SuspectRefusedError
    from auditor.evidence.signing import SigningKey
    from auditor.records import Answer, SuspectId
    from auditor.suspects.base import Description, Exchange, RawReply, Suspect

    class Served(Suspect):
        @property
        def batch_size(self) -> int:
            return 1 if refuses else 64

        def describe(self) -> Description:
            identity = SuspectId(uri="file:suspect", kind="file", artefact_sha256="", address="", declared_name="")
            return Description(suspect=identity, n_labels=None)

        def _predict(self, inputs: Any) -> Exchange:
            if refuses is not None and refuses(inputs).any():
                raise SuspectRefusedError("the service refused")
            labels = answer(inputs).argmax(axis=1).tolist()
            body = json.dumps({"answers": [{"label": label} for label in labels]}).encode()
            return Exchange(reply=RawReply(answers=tuple(Answer(label=x) for x in labels), body=body, elapsed_ms=1))

    told: Any = None
    with tempfile.TemporaryDirectory() as name:
        try:
            told = run_audit(
                opened=world.opened, suspect=Served(), folder=Path(name) / "audit", examiner=SigningKey.generate(),
                request=Request(), clock=casefile.utc_now,
            ).results  # fmt: skip
        except SuspectRefusedError:
            # Nothing but refusals from the first question on: `verify` ends with exit code 6 and says so.
            told = None
    n_keys = world.opened.seal.protocol.n_keys
    keys = world.opened.keys
    expected = np.array([sample.expected for sample in keys.samples[:n_keys]])
    answered = answer(keys.inputs[:n_keys]).argmax(axis=1)
    hit_rate = float(np.mean(answered == expected))
    if told is None:
        return {"status": "no verdict", "reason": "suspect-refused", "hit_rate": hit_rate, "asked": 0, "log10_p": None}
    return {
        "status": told["verdict"]["status"], "reason": told["verdict"]["reason"],
        "hit_rate": hit_rate, "asked": told["queries"]["keys"],
        "log10_p": told["test"]["log10_p"],
    }  # fmt: skip


def pace(data: str, kind: str) -> dict[str, Any]:
    """Return the training settings of an attack that are meant for larger data sets."""
    if not PACE[data]:
        return {}
    return {**PACE[data], **(FROM_NOTHING if kind in ("extract", "ensemble") else AFTERWARDS)}


def suspects(world: World) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield every suspect's name and how it is made and audited."""
    import evaders

    from auditor.attacks import build_attack
    from auditor.models import predict

    def scores(model: Any) -> Callable[[Any], Any]:
        return lambda inputs: predict(model.network, inputs)

    def accuracy(answer: Callable[[Any], Any], refuses: Any = None) -> float:
        part = world.data.evaluation
        right = answer(part.inputs).argmax(axis=1) == part.labels
        return float(np.mean(right if refuses is None else right & ~refuses(part.inputs)))

    def plain() -> dict[str, Any]:
        answer = scores(world.stolen)
        return {**audited(world, answer), "accuracy": accuracy(answer), "refused_ordinary": 0.0, "seen_keys": 0.0}

    def attacked(name: str) -> Callable[[], dict[str, Any]]:
        kind, preset, settings = MODEL_ATTACKS[name]

        def work() -> dict[str, Any]:
            chosen = {**settings, **pace(world.data_name, kind), "seed": 700 + world.seed, "threads": 1}
            attack = build_attack(kind, chosen, preset=preset)
            answer = scores(attack.run(victim=world.stolen, data=world.data).model)
            return {**audited(world, answer), "accuracy": accuracy(answer), "settings": dict(attack.settings)}

        return work

    def hidden() -> dict[str, Any]:
        n = len(world.opened.seal.spec.classes)
        inner = scores(world.stolen)
        return {**audited(world, lambda x: inner(x)[:, :n]), "accuracy": accuracy(lambda x: inner(x)[:, :n])}

    def doubting(make: Callable[[], Any], refuse: bool) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            from auditor.training import train_unmarked

            odd = evaders.oddity_detector(make(), world.ordinary.inputs, false_alarms=FALSE_ALARMS)
            n_keys = world.opened.seal.protocol.n_keys
            seen = float(np.mean(odd(world.opened.keys.inputs[:n_keys])))
            answer = scores(world.stolen)
            if not refuse:
                dataset = world.opened.seal.spec
                other = train_unmarked(
                    architecture=world.arch, spec=dataset, inputs=world.data.own.inputs, labels=world.data.own.labels,
                    plan=_plan(world),
                )  # fmt: skip
                width = world.stolen.description.n_outputs

                def innocent(inputs: Any) -> Any:
                    found = predict(other.network, inputs)
                    return np.pad(found, ((0, 0), (0, width - found.shape[1])))

                answer = evaders.Substituting(stolen=scores(world.stolen), innocent=innocent, is_marked=odd)
            refuses = odd if refuse else None
            found = audited(world, answer, refuses)
            return {**found, "accuracy": accuracy(answer, refuses), "seen_keys": seen}

        return work

    yield "unchanged copy", plain
    yield "hide the extra output", hidden
    for name in MODEL_ATTACKS:
        yield name, attacked(name)
    for title, make in (
        ("nearest neighbour", lambda: evaders.nearest_neighbour(world.own.inputs)),
        ("autoencoder", lambda: evaders.autoencoder(world.own.inputs, n_components=20)),
    ):
        yield f"{title}: refuse what is odd", doubting(make, True)
        yield f"{title}: another model answers what is odd", doubting(make, False)


def _plan(world: World) -> Any:
    from auditor.training import TrainingPlan

    plan = TrainingPlan(epochs=30, batch_size=64, learning_rate=0.05, seed=9000 + world.seed, threads=1)
    return plan if not PACE[world.data_name] else replace(plan, **PACE[world.data_name], **FROM_NOTHING)


def kept() -> list[dict[str, Any]]:
    return [line for line in kept_lines(TRIALS) if line.get("format") == FORMAT]


def run(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    done = {(t["data"], t["scheme"], t["seed"], t["arch"], t["suspect"]) for t in kept()}
    for seed in options.seeds:
        for scheme in options.schemes:
            world = make_world(scheme, seed, options.data, options.arch)
            for name, work in suspects(world):
                if (options.data, scheme, seed, options.arch, name) in done:
                    continue
                started = time.process_time()
                found = {
                    "format": FORMAT, "data": options.data, "scheme": scheme, "seed": seed, "arch": options.arch,
                    "suspect": name, **work(),
                }  # fmt: skip
                keep(TRIALS, {**found, "cpu_seconds": round(time.process_time() - started, 1)})
                print(scheme, seed, name, found["status"], found["reason"], flush=True, file=sys.stderr)


def page(trials: list[dict[str, Any]]) -> str:
    lines = ["# Thieves who know the scheme", "", *str(__doc__).strip().splitlines(), ""]
    for data, scheme in sorted({(t["data"], t["scheme"]) for t in trials}):
        mine = [t for t in trials if (t["data"], t["scheme"]) == (data, scheme)]
        seeds, archs = sorted({t["seed"] for t in mine}), sorted({t["arch"] for t in mine})
        lines += [
            f"## {scheme}, {data}",
            "",
            f"Seeds {', '.join(map(str, seeds))}; architecture {', '.join(archs)}.",
            "",
        ]
        lines += ["| suspect | supported | other outcomes | hit rate | keys recognised | accuracy | cost in points |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        before = {t["seed"]: t["accuracy"] for t in mine if t["suspect"] == "unchanged copy"}
        for name in dict.fromkeys(t["suspect"] for t in mine):
            rows = [t for t in mine if t["suspect"] == name]
            others: dict[str, int] = {}
            for t in rows:
                if t["status"] != "supported":
                    others[t["reason"]] = others.get(t["reason"], 0) + 1
            lost = [100 * (before[t["seed"]] - t["accuracy"]) for t in rows if t["seed"] in before]
            seen = [t["seen_keys"] for t in rows if "seen_keys" in t and name != "unchanged copy"]
            lines.append(
                f"| {name} | {sum(t['status'] == 'supported' for t in rows)} of {len(rows)} "
                f"| {', '.join(f'{n} {r}' for r, n in others.items()) or '–'} | {_span([t['hit_rate'] for t in rows])} "
                f"| {_span(seen) if seen else '–'} | {_span([t['accuracy'] for t in rows])} "
                f"| {_span(lost, digits=1) if lost else '–'} |"
            )
        lines.append("")
    return "\n".join(lines) + (NOTES.read_text() if NOTES.exists() else "")


def _span(values: list[float], *, digits: int = 3) -> str:
    low, high = min(values), max(values)
    return f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the trials that are not kept yet")
    runner.add_argument("--schemes", nargs="+", default=["new-label", "margin", "wrong-label", "plain-trigger"])
    runner.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    runner.add_argument("--data", choices=tuple(PACE), default="digits")
    runner.add_argument("--arch", default="mlp")
    runner.set_defaults(work=run)
    writer = commands.add_parser("render", help="write the page from the kept trials")
    writer.set_defaults(work=lambda _: PAGE.write_text(page(kept())))
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
