"""How often the label code gives away a copy that dropped the new label, and how often it suspects an innocent.

    python benchmarks/label_code.py run [--owners 60]   -> results/label_code.trials.jsonl (resumable, 4 s an owner)
    python benchmarks/label_code.py render              -> label_code.md

Every owner has a seed and a nonce of its own, so that pattern, target and code differ; all train on the digits with
the default recipe and the code on. A copy answers with the best of the first ten outputs. The two looks of an audit are
taken as `verify` takes them: at the keys of stage 1, and at all sealed keys.
"""

import argparse
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from kept import keep, kept_by_id
from scipy import stats

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "label_code.trials.jsonl"
PAGE = HERE / "label_code.md"
OPENING = 24
"""Keys of stage 1."""
N_INNOCENTS = 3
RULES = ((0.001, 0.05), (0.01, 0.05), (0.01, 0.2))
"""Level of both looks together, and the p-value of the first up to which all keys are asked; the last is in force."""


def run(n_owners: int) -> None:
    from auditor import datasets
    from auditor.draws import Secret
    from auditor.evidence.signing import SigningKey
    from auditor.models import predict
    from auditor.schemes.base import LabelCode
    from auditor.schemes.embedding import RECIPES
    from auditor.schemes.new_label import NewLabel
    from auditor.schemes.owner import KeySizes, commit, train_owner
    from auditor.training import train_unmarked

    digits, recipe = datasets.load("digits"), RECIPES["digits"]
    plan = replace(recipe.plan, seed=3)
    scheme = NewLabel(replace(recipe.settings, label_code=LabelCode.ON))
    twin, *innocents = (
        train_unmarked(
            architecture="small-cnn", spec=digits.spec, inputs=digits.train.inputs, labels=digits.train.labels,
            plan=replace(plan, seed=seed),
        )
        for seed in (plan.seed, *range(701, 701 + N_INNOCENTS))
    )  # fmt: skip
    done = kept_by_id(TRIALS)
    for number in range(n_owners):
        if f"owner {number}" in done:
            continue
        seed, nonce = bytes([number + 1]) * 32, bytes([number + 101]) * 32
        key = SigningKey.from_seed(nonce)
        committed = commit(
            scheme=scheme, dataset=digits, seed=seed, sizes=KeySizes(), key=key, committed_at="2026-01-01T00:00:00.000Z"
        )
        owned = train_owner(
            scheme=scheme, dataset=digits, secret=Secret(seed, nonce), plan=plan, committed=committed,
            randomness=nonce, twin=twin,
        )  # fmt: skip
        suspects = {"copy": owned, **{f"innocent {j}": model for j, model in enumerate(innocents)}}
        looks = {
            name: looks_at(predict(model.network, owned.keys.inputs), owned.keys.samples, owned.protocol)
            for name, model in suspects.items()
        }
        share = owned.record.code_when_masked
        keep(TRIALS, {"id": f"owner {number}", "code_rate": share.rate, "looks": looks})
        print(number, f"{share.rate:.3f}", looks, flush=True)


def looks_at(scores, samples, protocol) -> list[float]:
    """Return the p-values of the label code at the keys of stage 1 and at all keys, for a suspect of ten labels."""
    from auditor.analysis import label_code, sort_replies
    from auditor.records import Answer, InputSpec, Probe, Reply, SampleKind

    spec = InputSpec(shape=(1, 8, 8), classes=tuple(map(str, range(10))))
    known = {sample.index: sample for sample in samples}
    keys = [sample.index for sample in samples if sample.kind is SampleKind.KEY]
    replies = [
        Reply(
            probe=Probe(position=place, index=index, kind=SampleKind.KEY, repeat=False),
            answer=Answer(label=int(np.argmax(scores[index][:10]))),
        )
        for place, index in enumerate(keys)
    ]
    return [label_code(sort_replies(replies[:n]), known, spec, protocol).p_value for n in (OPENING, len(keys))]


def outcome(looks: list[float], *, level: float, suspicion: float) -> str:
    """Return what an audit makes of the two looks."""
    from auditor.verdict import CODE_LOOKS

    first, second = looks
    if first <= level / CODE_LOOKS:
        return "at stage 1"
    if first > suspicion:
        return "not told"
    return "at all keys" if second <= level / CODE_LOOKS else "not told after all keys"


def render() -> None:
    trials = list(kept_by_id(TRIALS).values())
    looks = {
        "copy without the new label": [trial["looks"]["copy"] for trial in trials],
        "independent model": [
            trial["looks"][f"innocent {j}"] for trial in trials for j in range(N_INNOCENTS)
        ],
    }  # fmt: skip
    rates = sorted(trial["code_rate"] for trial in trials)
    lines = [
        "# The label code against a copy that drops the new label",
        "",
        paragraph(
            f"{len(trials)} owners on the digits, each with a seed and a nonce of its own; {N_INNOCENTS} independent "
            "models answer all key sets. With the new label hidden, fresh keys get the coded class at "
            f"{rates[0]:.2f} to {rates[-1]:.2f} (median {rates[len(rates) // 2]:.2f})."
        ),
        "",
        "| suspect | level of both looks | all keys up to p | told at stage 1 | told at all keys "
        "| not told, all keys asked | not told | share told (95 %) |",
        "| --- " * 8 + "|",
    ]
    for name, found in looks.items():
        for level, suspicion in RULES:
            told = Counter(outcome(each, level=level, suspicion=suspicion) for each in found)
            n_told, n = told["at stage 1"] + told["at all keys"], len(found)
            span = stats.binomtest(n_told, n).proportion_ci(0.95, "exact")
            lines.append(
                f"| {name} | {level:g} | {suspicion:g} | {told['at stage 1']} | {told['at all keys']} | "
                f"{told['not told after all keys']} | {told['not told']} | {n_told / n:.3f} "
                f"({span.low:.3f}-{span.high:.3f}) |"
            )
    worst = sorted(second for _, second in looks["copy without the new label"])[-5:]
    lines += [
        "",
        paragraph(
            "A copy that is not told ends as *not supported*; one that is told ends as *inconclusive: label-hidden*, "
            "which is also what a told independent model costs. Neither is ever *supported* by the code. The five "
            "largest p-values of copies at all keys: "
            f"{', '.join(f'{p:.2g}' for p in worst)}. The last rule is in force: "
            "key sets seal that level, and a first look that is no more than suspicious has all keys asked, which "
            "costs questions and no level. The first rule was in force before these figures."
        ),
        "",
        paragraph(
            "The independent models are few and answer every key set, so that their rows are not independent trials; "
            "the level itself is exact, because the code is a uniform draw."
        ),
        "",
        f"Made by `benchmarks/label_code.py run --owners {len(trials)}` and `render`, commits "
        f"{', '.join(sorted({trial['commit'][:12] for trial in trials}))}, on {trials[0]['machine']}.",
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def paragraph(text: str) -> str:
    return textwrap.fill(text, width=118, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "render"))
    parser.add_argument("--owners", type=int, default=60)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.owners)
    else:
        render()


if __name__ == "__main__":
    main()
