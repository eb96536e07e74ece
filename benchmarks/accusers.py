"""False claims, carried out: what an accuser with a program of its own gets against models that owe it nothing.

    python benchmarks/accusers.py run --data digits fashion-mnist --seeds 1 2 3     (resumable; keeps each trial)
    python benchmarks/accusers.py patterns                                          (one pattern is one draw)
    python benchmarks/accusers.py render                                            (writes benchmarks/accusers.md)

The accuser trains three reference models, crafts triggers against all of them, and keeps what fools a fourth model that
took no part. The suspect is a fifth, trained on other images from another seed. Key sets are forged with
`tests/accusers/forged_sets.py`: signed, committed, sealed and well-formed, with whatever an accuser may choose. Every
audit is that of ``auditor verify``, from opening the key set to the verdict; the same attacks run through the command
line in `tests/accusers/`. One line of `benchmarks/results/accusers.trials.jsonl` is one audit.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep, kept_lines

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "accusers"))

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "accusers.trials.jsonl"
PAGE = HERE / "accusers.md"
N_IMAGES = {"digits": 1000, "fashion-mnist": 10_000}
"""Training images of every independent model, drawn anew for each."""
N_KEYS, SETS, GRINDING_LOG2, REAL_TRIES = 80, 1000, 20, 1 << 10
TITLES = {
    "chosen labels": "(a) transferable triggers under chosen labels, imported with `auditor seal`",
    "drawn labels": "(a) transferable triggers, committed, labels drawn afterwards",
    "foreseen labels, no randomness": "(a) triggers made for labels computed beforehand, no public randomness",
    "foreseen labels, nonce known": "(a) triggers made for labels computed beforehand, nonce known to the accuser",
    "crafted on the suspect": "(b) triggers crafted on the suspect itself, backdated, imported",
    "ground, no randomness": f"(c) the best of {REAL_TRIES} commitments, no public randomness",
    "luckiest of 1000": f"(d) the luckiest of {SETS} sealed sets, family undeclared",
    "natural labels": "(f) ordinary images under their natural labels, imported",
    "false natural labels": "(f) ordinary images said to be of another class, labels drawn",
    "rival labels": "(a) transferable triggers whose two classes the accuser names, a coin drawn afterwards",
    "exchanged rivals": "(f) ordinary images whose true class is named as the rival, a coin drawn afterwards",
    "foreseen rivals, nonce known": "(a) images chosen for a coin that was computed beforehand, nonce known",
    "luckiest of 1000, rivals": f"(d) the luckiest of {SETS} draws of the coin, family undeclared",
    "rejected carriers": '(g) carriers that the suspect\'s "reject" class takes anyway, new label',
    "rejected carriers, 40 %": "(g) the same, in 40 % of the carriers",
}


@dataclass(frozen=True, kw_only=True)
class World:
    """One accuser, one innocent."""

    data: str
    seed: int
    dataset: Any
    references: list[Any]
    suspect: Any
    triggers: Any
    controls: Any
    owner: Any


def make_world(data: str, seed: int) -> World:
    import forged_sets as forged
    import transferable

    from auditor import datasets
    from auditor.evidence.signing import SigningKey

    dataset = datasets.load(data)
    order = np.random.default_rng(seed)

    def independent(number: int) -> Any:
        part = dataset.train.take(order.permutation(len(dataset.train))[: N_IMAGES[data]])
        epochs = transferable.PLANS[data].epochs if data == "digits" else 8
        transferable.PLANS[data] = replace(transferable.PLANS[data], epochs=epochs)
        return transferable.independent(dataset, seed=1000 * seed + number, part=part)

    *references, held_out, suspect = [independent(number) for number in range(5)]
    pool = dataset.carriers.take(np.arange(60, min(len(dataset.carriers), 460)))
    wanted = transferable.wrong_classes(pool.labels, n_classes=10, seed=seed)
    effort = transferable.EFFORTS[data]
    made = transferable.craft(references, inputs=pool.inputs, naturals=pool.labels, wanted=wanted, effort=effort)
    found = transferable.kept(made, [held_out])
    return World(
        data=data, seed=seed, dataset=dataset, references=references, suspect=suspect, owner=SigningKey.generate(),
        triggers=found.take(np.arange(min(N_KEYS, len(found)))),
        controls=forged.Pictures(inputs=dataset.carriers.inputs[:60], naturals=dataset.carriers.labels[:60]),
    )  # fmt: skip


def audited(keyset: Path, suspect: Any, folder: Path) -> dict[str, Any]:
    """Open the key set as ``verify`` does, derive it again, audit the suspect, and return what was found."""
    from auditor import casefile
    from auditor.audit import Request, run_audit
    from auditor.errors import SealError
    from auditor.evidence.signing import SigningKey
    from auditor.models import save_model
    from auditor.suspects import open_suspect

    try:
        opened = casefile.open_keyset(keyset, seal=None, owner_fingerprint=None)
    except SealError as error:
        return {"status": "refused", "reason": str(error), "hits": 0, "asked": 0, "log10_e": None}
    folder.mkdir()
    save_model(folder, suspect.network, suspect.description)
    with open_suspect(model=folder, batch_size=64) as served:
        results: Any = run_audit(
            opened=opened, suspect=served, folder=folder / "audit", examiner=SigningKey.generate(), request=Request(),
            clock=casefile.utc_now,
        ).results  # fmt: skip
    return {
        "status": results["verdict"]["status"], "reason": results["verdict"]["reason"],
        "hits": results["detection"]["hits"], "asked": results["detection"]["trials"],
        "log10_p": results["test"]["log10_p"],
    }  # fmt: skip


def attacks(world: World, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield every attack's name with a function that carries it out."""
    import forged_sets as forged
    import transferable
    from forged_sets import Claim, Pictures

    from auditor import patterns
    from auditor.canonical import sha256_hex
    from auditor.evidence.imported import Foreign, import_keys
    from auditor.evidence.keyset import pack, write_sealed
    from auditor.evidence.seal import RandomnessSource, Seal, seed_commitment, sign_seal
    from auditor.models import labels_of
    from auditor.schemes.embedding import RECIPES as PATTERNS
    from auditor.schemes.margin import Margin, recipe_for
    from auditor.schemes.new_label import NewLabel
    from auditor.schemes.triggers import Choice, LabelDraw
    from auditor.training import train_unmarked

    dataset, triggers, controls, suspect = world.dataset, world.triggers, world.controls, world.suspect
    effort = transferable.EFFORTS[world.data]
    crafted = Pictures(inputs=triggers.inputs, naturals=triggers.naturals)
    ordinary = dataset.carriers.take(np.arange(60, 60 + N_KEYS))

    def margin(draw: LabelDraw = LabelDraw.WRONG, **more: Any) -> Claim:
        choice = Choice.RANDOM if draw is LabelDraw.WRONG else Choice.AMBIGUOUS
        settings = replace(recipe_for(dataset).settings, draw=draw, choice=choice)
        return Claim(scheme=Margin(settings), dataset=dataset, owner=world.owner, **more)

    def imported(name: str, keys: Pictures, expected: Any) -> dict[str, Any]:
        def foreign(pictures: Any, labels: Any) -> Foreign:
            naturals = tuple(int(x) for x in pictures.naturals)
            return Foreign(inputs=pictures.inputs, natural=naturals, expected=tuple(int(x) for x in labels))

        plain = Pictures(inputs=dataset.test.inputs[:100], naturals=dataset.test.labels[:100])
        keyset, protocol = import_keys(
            keys=foreign(keys, expected), shams=foreign(plain, (plain.naturals + 1) % 10),
            controls=foreign(controls, controls.naturals), classes=dataset.classes, seed=b"\x44" * 32,
        )  # fmt: skip
        seal = Seal(
            keyset_id=keyset.keyset_id, payload_sha256=sha256_hex(pack(keyset)), merkle_root=keyset.root().hex(),
            n_samples=len(keyset.samples), spec=keyset.spec, protocol=protocol, generator=keyset.generator,
            model_sha256="ab" * 32, seed_commitment=seed_commitment(keyset.secret_seed),
            owner_public_key=world.owner.public.hex(), serial=1, previous_seal_sha256="",
            sealed_at=forged.LONG_AGO, tool_version="forged",
        )  # fmt: skip
        write_sealed(folder / f"{name}.npz", keys=keyset, seal_envelope=sign_seal(seal, world.owner))
        wanted = float(np.mean(labels_of(suspect.network, keys.inputs) == np.asarray(expected)))
        return {**audited(folder / f"{name}.npz", suspect, folder / name), "as_wanted": wanted}

    def drawn(
        name: str, claim: Claim, keys: Pictures, wanted: float, *, target: Any = None, n: int | None = None
    ) -> Any:
        sealed = forged.sealed_claim(folder / f"{name} keys", claim, keys=keys, controls=controls, n_keys=n)
        return {**audited(sealed, target or suspect, folder / name), "as_wanted": wanted}

    def foreseen(name: str, source: Any, randomness: bytes) -> dict[str, Any]:
        claim = margin(source=source, randomness=randomness)
        first = forged.commit_to(claim, keys=_pictures(ordinary), controls=controls)
        labels = patterns.drawn_wrong_labels(
            claim.secret.drawn_after(first.envelope), scheme="margin", naturals=ordinary.labels.tolist(), n_classes=10
        )
        made = transferable.craft(
            world.references, inputs=ordinary.inputs, naturals=ordinary.labels, wanted=np.array(labels), effort=effort
        )
        return drawn(name, claim, Pictures(inputs=made.inputs, naturals=made.naturals), made.rate(suspect))

    def on_suspect() -> dict[str, Any]:
        wanted = transferable.wrong_classes(ordinary.labels, n_classes=10, seed=5)
        made = transferable.craft(
            [suspect], inputs=ordinary.inputs, naturals=ordinary.labels, wanted=wanted, effort=effort
        )
        return imported("crafted", Pictures(inputs=made.inputs, naturals=made.naturals), wanted)

    def best(claims: Any, draw: Any) -> Any:
        answers = labels_of(suspect.network, triggers.inputs)
        return max(claims, key=lambda claim: int(np.sum(answers == np.array(draw(claim)))))

    def labels_after(claim: Claim, envelope: bytes) -> Any:
        return patterns.drawn_wrong_labels(
            claim.secret.drawn_after(envelope), scheme="margin", naturals=triggers.naturals.tolist(), n_classes=10
        )

    def ground() -> dict[str, Any]:
        def claim(number: int) -> Claim:
            return margin(source=RandomnessSource.NONE, randomness=b"", seed=number.to_bytes(32))

        def labels(each: Claim) -> Any:
            return labels_after(each, forged.commit_to(each, keys=crafted, controls=controls).envelope)

        found = best((claim(number) for number in range(REAL_TRIES)), labels)
        return drawn("ground", found, crafted, triggers.rate(suspect))

    def luckiest() -> dict[str, Any]:
        envelope = forged.commit_to(margin(), keys=crafted, controls=controls).envelope
        claims = (margin(randomness=number.to_bytes(32)) for number in range(SETS))
        return drawn("lucky", best(claims, lambda c: labels_after(c, envelope)), crafted, triggers.rate(suspect))

    between = Pictures(inputs=triggers.inputs, naturals=triggers.naturals, rivals=triggers.wanted)
    exchanged = Pictures(inputs=ordinary.inputs, naturals=(ordinary.labels + 1) % 10, rivals=ordinary.labels)

    def coins_after(claim: Claim, envelope: bytes) -> Any:
        return patterns.drawn_rival_labels(
            claim.secret.drawn_after(envelope), scheme="margin", naturals=triggers.naturals.tolist(),
            rivals=triggers.wanted.tolist(),
        )  # fmt: skip

    def foreseen_coins() -> dict[str, Any]:
        claim = margin(LabelDraw.RIVAL)
        coins = np.array(coins_after(claim, forged.commit_to(claim, keys=between, controls=controls).envelope))
        plain = {int(n): ordinary.inputs[ordinary.labels == n] for n in np.unique(ordinary.labels)}
        fitting = triggers.inputs.copy()
        for place in np.flatnonzero(coins == triggers.naturals):
            of_class = plain[int(triggers.naturals[place])]
            fitting[place] = of_class[place % len(of_class)]
        fits = float(np.mean(labels_of(suspect.network, fitting) == coins))
        return drawn("foreseen coins", claim, replace(between, inputs=fitting), fits)

    def luckiest_coins() -> dict[str, Any]:
        envelope = forged.commit_to(margin(LabelDraw.RIVAL), keys=between, controls=controls).envelope
        claims = (margin(LabelDraw.RIVAL, randomness=number.to_bytes(32)) for number in range(SETS))
        return drawn("lucky coins", best(claims, lambda c: coins_after(c, envelope)), between, triggers.rate(suspect))

    def rejecting(name: str, share: float) -> dict[str, Any]:
        odd = np.random.default_rng(world.seed).integers(0, 256, (620, *dataset.spec.shape), dtype=np.uint8)
        part = dataset.train.take(np.random.default_rng(world.seed).permutation(len(dataset.train))[:1000])
        model = train_unmarked(
            architecture="mlp", spec=replace(dataset.spec, classes=(*dataset.classes, "reject")),
            inputs=np.concatenate([part.inputs, odd[320:]]), labels=np.concatenate([part.labels, np.full(300, 10)]),
            plan=replace(transferable.PLANS["digits"], seed=world.seed),
        )  # fmt: skip
        n = round(share * 320)
        inputs = np.concatenate([odd[:n], part.inputs[: 320 - n]])
        claim = Claim(
            scheme=NewLabel(replace(PATTERNS[world.data].settings, beta=0.05)), dataset=dataset, owner=world.owner
        )
        rate = float(np.mean(labels_of(model.network, inputs) == 10))
        return drawn(name, claim, Pictures(inputs=inputs, naturals=np.arange(320) % 10), rate, target=model, n=120)

    yield "chosen labels", lambda: imported("chosen", crafted, triggers.wanted)
    yield "drawn labels", lambda: drawn("drawn", margin(), crafted, triggers.rate(suspect))
    yield "foreseen labels, no randomness", lambda: foreseen("none", RandomnessSource.NONE, b"")
    yield "foreseen labels, nonce known", lambda: foreseen("nonce", RandomnessSource.NONCE, forged.NONCE)
    yield "crafted on the suspect", on_suspect
    yield "ground, no randomness", ground
    yield "luckiest of 1000", luckiest
    yield "natural labels", lambda: imported("natural", _pictures(ordinary), ordinary.labels)
    false = Pictures(inputs=ordinary.inputs, naturals=(ordinary.labels + 1) % 10)
    right = float(np.mean(labels_of(suspect.network, ordinary.inputs) == ordinary.labels))
    yield "false natural labels", lambda: drawn("false", margin(), false, right)
    yield "rival labels", lambda: drawn("rivals", margin(LabelDraw.RIVAL), between, triggers.rate(suspect))
    yield "exchanged rivals", lambda: drawn("exchanged", margin(LabelDraw.RIVAL), exchanged, right)
    yield "foreseen rivals, nonce known", foreseen_coins
    yield "luckiest of 1000, rivals", luckiest_coins
    yield "rejected carriers", lambda: rejecting("reject", 1.0)
    yield "rejected carriers, 40 %", lambda: rejecting("reject40", 0.4)


def _pictures(part: Any) -> Any:
    from forged_sets import Pictures

    return Pictures(inputs=part.inputs, naturals=part.labels)


def simulated_grinding() -> dict[str, Any]:
    """Draw 2^20 label sets by their law, as many as a grinder would, and count what each level would claim."""
    from auditor.stats.sequential import log_e

    rng, n = np.random.default_rng(20), N_KEYS
    table = np.full((n + 1, n + 1), -np.inf)
    for m in range(1, n + 1):
        table[m, : m + 1] = np.asarray(log_e(np.arange(m + 1), m, 1 / 9)) / np.log(10)
    largest = []
    for _ in range(1 << (GRINDING_LOG2 - 14)):
        hits = np.cumsum(rng.random((1 << 14, n)) < 1 / 9, axis=1)
        largest.append(np.max(table[np.arange(1, n + 1), hits], axis=1))
    found = np.concatenate(largest)
    return {
        "tries": len(found), "keys": n, "largest_log10_e": round(float(found.max()), 2),
        "claims_at_1e-6": int((found >= 6).sum()), "claims_after_2^64": int((found >= 6 + 64 * np.log10(2)).sum()),
    }  # fmt: skip


def single_patterns(model: Any, dataset: Any, *, beta: float, draws: int) -> dict[str, Any]:
    """Draw wrong-label key sets honestly, and count claims without and with the rule on single foreign patterns."""
    from auditor.models import labels_of
    from auditor.patterns import add_pattern
    from auditor.stats import exact, sequential

    carriers = dataset.carriers.take(np.arange(60, 250))
    rng, n_keys, patterns, each, level = np.random.default_rng(0), 120, 40, 5, 5e-7
    shape, steps = dataset.spec.shape, np.arange(1, n_keys + 1)
    claims = vetoed = 0
    for _ in range(draws):
        target = rng.integers(10)
        order = rng.permutation(np.flatnonzero(carriers.labels != target))
        keys = add_pattern(carriers.inputs[order[:n_keys]], rng.standard_normal(shape), beta=beta)
        dealt = np.resize(np.concatenate([order[n_keys:], order]), patterns * each)
        groups = dealt.reshape(patterns, each)
        shams = np.concatenate([add_pattern(carriers.inputs[g], rng.standard_normal(shape), beta=beta) for g in groups])
        hit = (labels_of(model.network, shams) == target).reshape(patterns, each).sum(axis=1)
        rate = max(0.01, exact.upper_bound_at(hits=int(hit.sum()), trials=patterns * each, error=level))
        if rate >= 0.3:
            continue
        hits = np.cumsum(labels_of(model.network, keys) == target)
        best = max(float(sequential.log_e(int(h), int(k), rate)) for h, k in zip(hits, steps, strict=True))
        if best >= -np.log(level):
            claims += 1
            vetoed += bool(2 * hit.max() > each)
    return {"beta": beta, "draws": draws, "claims_before": claims, "claims_now": claims - vetoed}


def run_single_patterns(options: argparse.Namespace) -> None:
    import torch
    import transferable

    from auditor import datasets

    torch.set_num_threads(1)
    dataset = datasets.load("digits")
    for seed in options.seeds:
        model = transferable.independent(dataset, seed=seed)
        for beta in (0.4, 1.0, 10.0):
            found = single_patterns(model, dataset, beta=beta, draws=200)
            keep(TRIALS, {"data": "", "seed": seed, "attack": "single patterns", **found})


def run(options: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    done = {(t["data"], t["seed"], t["attack"]) for t in kept_lines(TRIALS)}
    if ("", 0, "simulated grinding") not in done:
        keep(TRIALS, {"data": "", "seed": 0, "attack": "simulated grinding", **simulated_grinding()})
    for data in options.data:
        for seed in options.seeds:
            if all((data, seed, name) in done for name in TITLES):
                continue
            world = make_world(data, seed)
            with tempfile.TemporaryDirectory() as name:
                for attack, work in attacks(world, Path(name)):
                    if (data, seed, attack) not in done:
                        found = work()
                        keep(TRIALS, {"data": data, "seed": seed, "attack": attack, **found})
                        print(data, seed, attack, found, file=sys.stderr, flush=True)


def page(trials: list[dict[str, Any]]) -> str:
    lines = ["# False claims", "", *str(__doc__).strip().splitlines(), ""]
    audits = [t for t in trials if t["data"]]
    supported = sum(t["status"] == "supported" for t in audits)
    lines += [f"**{supported} of {len(audits)} audits are *supported*.**", ""]
    for data in sorted({t["data"] for t in audits}):
        mine = [t for t in audits if t["data"] == data]
        lines += [f"## {data}", "", f"Seeds {', '.join(str(s) for s in sorted({t['seed'] for t in mine}))}.", ""]
        lines += ["| attack | suspect answers as the accuser wants | hits of keys asked | outcome |"]
        lines += ["| --- | --- | --- | --- |"]
        for attack, title in TITLES.items():
            rows = sorted((t for t in mine if t["attack"] == attack), key=lambda t: t["seed"])
            if rows:
                wanted = ", ".join(f"{t['as_wanted']:.2f}" for t in rows)
                hits = ", ".join(f"{t['hits']}/{t['asked']}" for t in rows)
                outcomes = "; ".join(dict.fromkeys(f"{t['status']}: {t['reason']}" for t in rows))
                lines.append(f"| {title} | {wanted} | {hits} | {outcomes} |")
        lines.append("")
    singles = [t for t in trials if t["attack"] == "single patterns"]
    if singles:
        lines += [
            "## One pattern is one draw", "",
            "Honest wrong-label draws on digits against independent models, by amplitude; claims at 10⁻⁶ before and "
            "after one foreign pattern that hits by itself takes the test's power.", "",
            "| model's seed | amplitude | draws | claims before | claims now |", "| --- | --- | --- | --- | --- |",
            *(
                f"| {t['seed']} | {t['beta']} | {t['draws']} | {t['claims_before']} | {t['claims_now']} |"
                for t in singles
            ), "",
        ]  # fmt: skip
    for t in trials:
        if t["attack"] == "simulated grinding":
            lines += [
                "## Grinding", "",
                f"Among {t['tries']:,} label sets drawn by their law for {t['keys']} answers that all deviate, the "
                f"largest log10 e-value is {t['largest_log10_e']}; {t['claims_at_1e-6']} reach the level 10⁻⁶ "
                "uncharged, which an accuser has who knows the nonce before it commits, and "
                f"{t['claims_after_2^64']} reach it after 2⁶⁴ tries are charged, as without public randomness.",
                "",
            ]  # fmt: skip
    return "\n".join(lines) + (NOTES.read_text() if NOTES.exists() else "")


NOTES = HERE / "accusers.notes.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the trials that are not kept yet")
    runner.add_argument("--data", nargs="+", default=["digits", "fashion-mnist"], choices=["digits", "fashion-mnist"])
    runner.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    runner.set_defaults(work=run)
    single = commands.add_parser("patterns", help="count claims of honest wrong-label draws by amplitude")
    single.add_argument("--seeds", nargs="+", type=int, default=[31, 32])
    single.set_defaults(work=run_single_patterns)
    writer = commands.add_parser("render", help="write the page from the kept trials")
    writer.set_defaults(work=lambda _: PAGE.write_text(page(kept_lines(TRIALS))))
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
