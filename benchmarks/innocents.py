"""Audits models that never saw the mark: how often does any scheme's whole procedure say *supported*?

    python benchmarks/innocents.py run --data digits --rounds 3            # every finished line is kept
    python benchmarks/innocents.py run --data fashion-mnist --rounds 1     # may be killed and started again
    python benchmarks/innocents.py controls --data digits                  # marked models: the procedure can say it
    python benchmarks/innocents.py render                                  # the page, from the kept lines

One line of ``benchmarks/results/innocents.trials.jsonl`` is one innocent in one round: audits with one sealed key set
of each scheme, as ``auditor verify`` makes them (``auditor.audit.run_audit``: sealed order, sequential rule, signed
transcript, results recomputed from what was written). Every round takes other key sets. One audit of every third line
is finished as a bundle and re-checked like ``auditor check`` does. CosWM has no sealed protocol; its published rule and
its rank among fresh keys are computed instead, and counted apart.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import innocents_keys as keysets
import innocents_models as models
import numpy as np
from kept import keep, kept_by_id

from auditor.audit import Request, run_audit
from auditor.canonical import sha256_hex
from auditor.casefile import utc_now
from auditor.errors import AuditorError, UsageError
from auditor.evidence.bundle import write_manifest
from auditor.evidence.check import check_bundle
from auditor.evidence.checks.base import CheckOutcome
from auditor.evidence.keyset import open_sealed
from auditor.evidence.signing import SigningKey
from auditor.guards.coswm import CosWM, cosine_test
from auditor.suspects.base import Suspect

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "innocents.trials.jsonl"
PAGE = HERE / "innocents.md"
NOTES = HERE / "innocents.notes.md"
FORMAT = 2
ROUNDS = {"digits": 3, "fashion-mnist": 1}
COSWM_PROBES, COSWM_DRAWS = 1_000, 49
CHECK_EVERY, COSWM_EVERY = 3, 2
"""Of so many lines one has an audit that is finished as a bundle and re-checked, and one the test of CosWM."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One innocent in one round."""

    innocent: models.Innocent
    index: int
    round: int

    @property
    def identity(self) -> str:
        """Name that is equal for equal content."""
        public = self.innocent.kind == "tuned" or self.innocent.owner >= keysets.ANCESTOR
        # What the key sets of the public base model's owner are made with decides these lines.
        sets = [keysets.N_ANCESTOR, keysets.TRIGGER_EPOCHS] if public else []
        sets += list(keysets.KEY_SETS[self.innocent.data]) if self.innocent.data != "digits" else []
        return digest([FORMAT, told(self.innocent), self.round, *sets])

    @property
    def folder(self) -> Path:
        """Where the model lies once it is made."""
        who = self.innocent
        # What was made with a key set goes when key sets are made in another way.
        made_with = [keysets.FORMAT] if who.scheme else []
        return keysets.CACHE / who.data / "models" / digest([told(who), *made_with] if made_with else told(who))


def digest(content: object) -> str:
    """Return a short digest of what makes a trial."""
    return sha256_hex(json.dumps(content, sort_keys=True).encode())[:16]


def told(innocent: models.Innocent) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    plain = {f.name: f.default for f in fields(innocent)}
    return {name: value for name, value in asdict(innocent).items() if value != plain[name]}


def planned(data: str, rounds: int) -> list[Trial]:
    """Return every trial, round by round, in an order that mixes the groups."""
    innocents = models.planned(data)
    order = sorted(range(len(innocents)), key=lambda i: digest(told(innocents[i])))
    return [Trial(innocent=innocents[i], index=i, round=r) for r in range(rounds) for i in order]


def key_set_numbers(trial: Trial) -> dict[str, int]:
    """Return the key set of every scheme that an innocent is audited with in a round.

    A hard negative meets the owners it is close to; a model that carries a mark never meets that mark's key set.
    """
    who, marked = trial.innocent, keysets.N_MARKED
    numbers = list(keysets.KEY_SETS[who.data])
    ancestors = [keysets.ANCESTOR + i for i in range(keysets.N_ANCESTOR)]
    found = {}
    for scheme in keysets.SEALED:
        usable = numbers
        if who.kind == "tuned" or who.owner >= keysets.ANCESTOR:
            usable = ancestors if scheme != "dawn" else []
            if who.kind == "tuned" and trial.round > 0:
                usable = numbers
        elif who.kind in ("twin", "student"):
            usable = [number for number in numbers if number % marked == who.owner]
        elif who.scheme == scheme:
            usable = [number for number in numbers if number != who.owner]
        step = max(1, len(usable) // ROUNDS[who.data])
        if usable and (trial.round == 0 or len(usable) > 1):
            found[scheme] = usable[(trial.index + trial.round * step) % len(usable)]
    return found


def run_trial(trial: Trial, examiner: SigningKey) -> dict[str, Any]:
    """Make the innocent unless it is there, and audit it."""
    started = time.process_time()
    who, data = trial.innocent, trial.innocent.data
    if not trial.folder.exists():
        making = trial.folder.with_name(f"{trial.folder.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        models.make(who, making)
        keysets.settle(making, trial.folder)
    made = time.process_time()
    test = keysets.owner_images(data).test
    shown = slice(0, COSWM_PROBES)
    with models.suspect(who, trial.folder) as suspect:
        answers = suspect.query_all(test.inputs[shown])
        accuracy = float(np.mean([answer.label for answer in answers] == test.labels[shown]))
        scores = None
        if trial.index % COSWM_EVERY == 0 and all(answer.scores is not None for answer in answers):
            scores = np.array([answer.scores[:10] for answer in answers if answer.scores is not None])
        numbers = key_set_numbers(trial)
        chosen = trial.index // CHECK_EVERY if trial.index % CHECK_EVERY == 0 else None
        checked = "" if chosen is None else sorted(numbers)[chosen % len(numbers)]
        found = [
            audited(keysets.claim(data, scheme, number), suspect, examiner, check=scheme == checked)
            for scheme, number in numbers.items()
        ]
    return {
        "id": trial.identity, "data": data, "round": trial.round, "index": trial.index, "innocent": told(who),
        "accuracy": round(accuracy, 4), "audits": found, "coswm": None if scores is None else cosine(trial, scores),
        "cpu_s": [round(made - started, 2), round(time.process_time() - made, 2)],
    }  # fmt: skip


def audited(claim: keysets.Claim, suspect: Suspect, examiner: SigningKey, *, check: bool) -> dict[str, Any]:
    """Audit as ``auditor verify`` does and return what the results say."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "audit"
        try:
            audit = run_audit(
                opened=claim.opened, suspect=suspect, folder=folder, examiner=examiner, request=Request(),
                clock=utc_now,
            )  # fmt: skip
        except AuditorError as error:
            return {"scheme": claim.scheme, "number": claim.number, "error": type(error).__name__}
        found = figures(audit.results)
        if check:
            write_manifest(folder, examiner=examiner, clock=utc_now)
            report = check_bundle(
                folder, owner_fingerprint=None, examiner_fingerprint=examiner.fingerprint, render_html=None,
                check_pdf=None,
                open_keyset=lambda seal: open_sealed(claim.folder / "k.npz", seal_envelope=seal),
            )  # fmt: skip
            found["check"] = {each.value: sum(s.outcome is each for s in report.steps) for each in CheckOutcome}
    return {"scheme": claim.scheme, "number": claim.number, **found}


def figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a results object that the page is made of."""
    test, detection, null = results["test"], results["detection"], results["null"]
    found = {
        "status": results["verdict"]["status"], "reason": results["verdict"]["reason"],
        "queries": results["queries"]["total"], "hits": detection["hits"], "trials": detection["trials"],
        "null": round(float(null["rate"]), 5), "log10_p": rounded(test["log10_p"]),
        "log10_e": rounded(test["log10_e"]), "control": rounded(results["controls"]["clean"]["accuracy"]),
    }  # fmt: skip
    if detection["bets"]:
        found["bets"] = detection["bets"]["answers"]
    if null["shams"]:
        found["sham_hits"] = null["shams"]["hits"]
    if null["pattern_rank"]:
        found["rank_p"] = rounded(null["pattern_rank"]["p_value"])
    if results["label_code"]:
        found["code_p"] = rounded(results["label_code"]["p_value"])
    if results.get("table"):
        found["clients"] = [
            {"log10_p": rounded(c["log10_p"]), "redraw_p": rounded(c["monte_carlo"]["p_value"])}
            for c in sorted(results["table"]["clients"], key=lambda c: c["client"])
        ]
        found["channel"] = results["table"]["channel"]
    return found


def rounded(text: str | None) -> float | None:
    """Return a decimal string as a number of few digits."""
    return None if text is None else float(f"{float(text):.5g}")


def cosine(trial: Trial, scores: Any) -> dict[str, Any]:
    """Return what the published rule of CosWM says of an innocent, and the rank of its key."""
    data = trial.innocent.data
    test, number = keysets.owner_images(data).test, (trial.index + 3 * trial.round) % len(keysets.KEY_SETS[data])
    key = CosWM(
        client_key=keysets.draw(data, number, "coswm"), n_classes=10, shape=keysets.owner_images(data).spec.shape
    ).key
    try:
        found = cosine_test(
            inputs=test.inputs[:COSWM_PROBES], labels=test.labels[:COSWM_PROBES], scores=scores, key=key,
            seed=keysets.draw(data, number, "coswm fresh"), draws=COSWM_DRAWS,
        )  # fmt: skip
    except UsageError as error:
        return {"number": number, "error": str(error)}
    return {
        "number": number, "claimed": found.claimed, "ratio": round(found.signal_to_noise, 3),
        "p": round(found.p_value, 4),
    }  # fmt: skip


def run_control(data: str, scheme: str, number: int, examiner: SigningKey) -> dict[str, Any]:
    """Audit a model that really carries the mark of a key set."""
    claim = keysets.claim(data, scheme, number)
    train = keysets.owner_images(data).train
    if claim.marked:
        model = claim.marked_model()
    elif scheme == "dynamarks":
        part = train.take(np.arange(min(len(train), 6_000)))
        model = models.taught_by_guard(data, number, part, epochs=30 if data == "digits" else 6, seed=4000)
    else:
        model = models.taught_by_dawn(data, number, epochs=60, seed=4000)
    with tempfile.TemporaryDirectory() as name:
        models.wrapped.save(Path(name) / "model", model)
        with models.TorchFileSuspect(Path(name) / "model") as suspect:
            found = audited(claim, suspect, examiner, check=False)
    return {"id": digest([FORMAT, "control", data, scheme, number]), "data": data, "control": found}


def planned_controls(data: str) -> list[tuple[str, int]]:
    """Return the key sets that a marked model exists for, or is made for."""
    ancestors = range(keysets.ANCESTOR, keysets.ANCESTOR + keysets.N_ANCESTOR) if data == "digits" else ()
    numbers = [*range(keysets.N_MARKED), *ancestors]
    return [(s, n) for s in keysets.SEALED for n in numbers if n < keysets.ANCESTOR or s != "dawn"]


def run(options: argparse.Namespace) -> None:
    """Run the trials that are not kept yet."""
    import torch

    torch.set_num_threads(1)
    examiner, done = SigningKey.generate(), kept_by_id(TRIALS)
    wanted = planned(options.data, options.rounds or ROUNDS[options.data])
    share, shares = (int(part) for part in options.share.split("/"))
    todo = [t for t in wanted if t.identity not in done and t.index % shares == share]
    print(f"{len(todo)} of {len(wanted)} lines to run", file=sys.stderr, flush=True)
    for count, trial in enumerate(todo, start=1):
        try:
            record = run_trial(trial, examiner)
        except (AuditorError, ValueError, RuntimeError, OSError):
            # A line that is missing is counted as missing by the page; the others go on.
            traceback.print_exc()
            continue
        keep(TRIALS, record)
        told_of = [a.get("status", a.get("error")) for a in record["audits"]]
        print(f"{count}/{len(todo)} {trial.innocent.group}: {record['cpu_s']} {told_of}", file=sys.stderr, flush=True)


def controls(options: argparse.Namespace) -> None:
    """Audit the marked models."""
    import torch

    torch.set_num_threads(1)
    examiner, done = SigningKey.generate(), kept_by_id(TRIALS)
    for scheme, number in planned_controls(options.data):
        if digest([FORMAT, "control", options.data, scheme, number]) in done:
            continue
        record = run_control(options.data, scheme, number, examiner)
        keep(TRIALS, record)
        print(scheme, number, record["control"].get("status"), file=sys.stderr, flush=True)


def render(_: argparse.Namespace) -> None:
    """Write the page."""
    from innocents_render import page

    lines = list(kept_by_id(TRIALS).values())
    if not lines:
        raise SystemExit("no kept lines: run `python benchmarks/innocents.py run` first")
    current = {trial.identity for data in ROUNDS for trial in planned(data, ROUNDS[data])}
    current |= {
        digest([FORMAT, "control", data, scheme, number])
        for data in ROUNDS
        for scheme, number in planned_controls(data)
    }
    kept_out = [line for line in lines if line["id"] not in current]
    lines = [line for line in lines if line not in kept_out]
    PAGE.write_text(page(lines, superseded=kept_out, notes=NOTES.read_text()))
    print(f"written: {PAGE}", file=sys.stderr)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, work in (("run", run), ("controls", controls)):
        runner = commands.add_parser(name)
        runner.add_argument("--data", choices=tuple(ROUNDS), default="digits")
        if work is run:
            runner.add_argument("--rounds", type=int, default=None, help="default: 3 for digits, 1 for fashion-mnist")
            runner.add_argument("--share", default="0/1", help="I/N: the I-th of N processes, from 0 (default 0/1)")
        runner.set_defaults(work=work)
    commands.add_parser("render").set_defaults(work=render)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
