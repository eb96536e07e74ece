"""From the bundle's numbers to the lines a report prints; every measured figure keeps its results.json pointer."""

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.errors import MalformedError
from auditor.records import Design, Reason, Status
from auditor.report import drawn_labels, drawn_table, wording
from auditor.report.inputs import Tree
from auditor.report.power import PowerRow, probability
from auditor.report.text import clean, decimal, groups, level, p_value, rate, ratio
from auditor.stats.likelihood import BANDS, Favours, band, favours
from auditor.verdict import status_of

NONE = "none"
NOT_MEASURED = "not measured"
MAX_KEYS = 100_000
MAX_ROWS = 50
"""Longest table printed; the rest is counted and left to the attached files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table of facts."""

    label: str
    value: str = ""
    """Empty means: only a person can answer."""
    pointer: str = ""
    """Where results.json states the figure."""
    code: bool = False
    """True for digests and addresses, which are set in fixed width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRow:
    """One band of the verbal scale."""

    words: str
    ratios: str
    mark: str
    """``H1`` or ``H2`` where the reported ratio falls into this band, else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict as read, and which way its likelihood ratio points."""

    status: Status
    reason: Reason
    explanation: str
    lr: float | None
    favours: Favours


def check_ranges(tree: Tree) -> None:
    """Refuse levels, rates and counts that cannot be, before anything is computed from them.

    Raises:
        MalformedError: a number of results.json is out of its range.
    """
    levels = ("/test/alpha", "/test/alpha_test", "/test/futility", "/test/p_min")
    for pointer in levels:
        if not 0 < tree.number(pointer) < 1:
            raise MalformedError(f"{tree.what}: {pointer} must lie between 0 and 1")
    if not 0 <= tree.number("/null/rate") <= 1:
        raise MalformedError(f"{tree.what}: /null/rate must lie between 0 and 1")
    if not 0 <= tree.integer("/detection/hits") <= tree.integer("/detection/trials") <= MAX_KEYS:
        raise MalformedError(f"{tree.what}: /detection holds impossible counts")


def read_outcome(tree: Tree) -> Outcome:
    """Return the outcome; status and reason must belong together, and the band must follow from the ratio.

    Raises:
        MalformedError: results.json contradicts itself.
    """
    try:
        status, reason = Status(tree.text("/verdict/status")), Reason(tree.text("/verdict/reason"))
    except ValueError as error:
        raise MalformedError(f"{tree.what}: unknown verdict") from error
    if status_of(reason) is not status:
        raise MalformedError(f"{tree.what}: status and reason of the verdict contradict each other")
    lr = tree.optional_number("/opinion/lr")
    if lr is not None and lr < 0:
        raise MalformedError(f"{tree.what}: /opinion/lr must not be negative")
    if lr is not None and tree.text("/opinion/band") != band(lr).words:
        raise MalformedError(f"{tree.what}: the verbal band does not follow from the likelihood ratio")
    side = Favours.NEITHER if lr is None else favours(lr)
    explanation = clean(tree.text("/verdict/explanation"), limit=600)
    return Outcome(status=status, reason=reason, explanation=explanation, lr=lr, favours=side)


def figures(tree: Tree, outcome: Outcome, powers: Sequence[PowerRow]) -> wording.Figures:
    """Return the figures that the outcome's sentences quote."""
    lr = outcome.lr
    strength = None if lr is None else lr if lr >= 1 else float("inf") if lr == 0 else 1 / lr
    miss = f"at most {level(tree.number('/test/futility'))}"
    if outcome.reason is Reason.NULL_NOT_REJECTED:
        miss = next((_at_most(row.not_supported) for row in powers if row.is_minimum), NOT_MEASURED)
    return wording.Figures(
        hits=f"{tree.integer('/detection/hits')} of {tree.integer('/detection/trials')}",
        comparison=drawn_table.comparison(tree) if drawn_table.applies(tree) else drawn_labels.comparison(tree),
        caution=_caution(tree),
        p_min=f"{tree.number('/test/p_min'):g}",
        miss=miss,
        likelihood_ratio="" if strength is None else decimal(strength, digits=2),
        band="" if lr is None else band(lr).words,
        favours=outcome.favours,
        reason=wording.reason_title(outcome.reason),
    )


def _caution(tree: Tree) -> str:
    if drawn_table.applies(tree):
        return drawn_table.CAUTION
    return drawn_labels.CAUTION if drawn_labels.applies(tree) else wording.SHAM_CAUTION


def _at_most(probability: str) -> str:
    if probability.startswith("<"):
        return f"less than {probability[2:]}"
    return "up to 1" if probability.startswith(">") else f"at most {probability}"


def scale(outcome: Outcome) -> tuple[ScaleRow, ...]:
    """Return the whole verbal scale with the applying band marked."""
    applying = None if outcome.lr is None else band(outcome.lr)
    rows = []
    for row in BANDS:
        upper = "" if row.upper is None else f" to {row.upper:,.0f}"
        ratios = f"above {row.lower:,.0f}" if row.upper is None else f"{row.lower:,.0f}{upper}"
        mark = "" if row is not applying else "this report" if outcome.favours is Favours.NEITHER else outcome.favours
        rows.append(ScaleRow(words=row.words, ratios=ratios, mark=str(mark)))
    return tuple(rows)


def key_figures(tree: Tree, outcome: Outcome) -> tuple[tuple[str, str], ...]:
    """Return the four figures of the front page as (figure, caption)."""
    if drawn_table.applies(tree):
        return drawn_table.key_figures(tree)
    hits = f"{tree.integer('/detection/hits')} of {tree.integer('/detection/trials')}"
    null = (rate(tree.number("/null/rate")), "hit rate granted to an independent model")
    if drawn_labels.applies(tree):
        null = (
            rate(tree.number("/null/rate")),
            f"of an independent model's {drawn_labels.counted(tree)} hit, by the draw",
        )
    elif tree.integer("/null/shams/trials") == 0:
        null = ("–", "no sham was asked: the null rate was not measured")
    decided = tree.optional_integer("/queries/keys_until_decision")
    asked = (str(decided), "key samples asked until the test decided")
    if tree.text("/test/design") == Design.FIXED:
        asked = (str(tree.integer("/queries/keys")), "key samples asked, as the fixed design demands")
    if outcome.status is Status.INCONCLUSIVE or (decided is None and outcome.reason is not Reason.NULL_NOT_REJECTED):
        asked = ("–", "the examination reached no valid decision")
    ratio_of = ("none", "no likelihood ratio is reported")
    if outcome.lr is not None:
        ratio_of = (decimal(outcome.lr, digits=2), f"reported likelihood ratio: {band(outcome.lr).words}")
    return (hits, "key samples with the sealed answer"), null, asked, ratio_of


def counts(tree: Tree) -> tuple[Row, ...]:
    """Return what was asked and answered."""
    detection = tree.optional_number("/detection/rate")
    rows = [
        Row(label="Cells whose target leads" if drawn_table.applies(tree) else "Hits among key samples",
            pointer="/detection",
            value=f"{tree.integer('/detection/hits')} of {tree.integer('/detection/trials')}"),
        Row(label="Share of them" if drawn_table.applies(tree) else "Hit rate", pointer="/detection/rate",
            value=NOT_MEASURED if detection is None else rate(detection)),
    ]  # fmt: skip
    if tree.has("/detection/interval"):
        low, high = tree.number("/detection/interval/low"), tree.number("/detection/interval/high")
        confidence = tree.number("/detection/interval/confidence")
        rows.append(Row(label=f"Interval for the hit rate at confidence {confidence:g}, valid at any stopping time",
                        value=f"{rate(low)} to {rate(high)}", pointer="/detection/interval"))  # fmt: skip
    if tree.has("/detection/bets"):
        what = "prefer one of the two classes" if drawn_labels.rivals(tree) else "deviate from the ordinary label"
        rows.append(Row(label=f"Answers to key samples that {what} (missing ones included)",
                        value=str(tree.integer("/detection/bets/answers")), pointer="/detection/bets"))  # fmt: skip
    if tree.has("/null/shams"):
        rows.append(Row(label="Hits among sham samples (a missing answer counts as a hit)", pointer="/null/shams",
            value=f"{tree.integer('/null/shams/hits')} of {tree.integer('/null/shams/trials')}"))  # fmt: skip
    rows += [
        Row(label="Natural answers on control samples", pointer="/controls/clean",
            value=f"{tree.integer('/controls/clean/correct')} of {tree.integer('/controls/clean/trials')}"),
        Row(label="Smallest permitted share of natural answers", pointer="/controls/clean/minimum",
            value=rate(tree.number("/controls/clean/minimum"))),
        Row(label="Repeated questions answered differently", pointer="/controls/repeats",
            value=f"{tree.integer('/controls/repeats/disagreements')} of {tree.integer('/controls/repeats/trials')}"),
        Row(label="Largest permitted share of different answers", pointer="/controls/repeats/maximum",
            value=rate(tree.number("/controls/repeats/maximum"))),
        Row(label="Missing answers: keys / shams / controls", pointer="/controls/missing",
            value=_lost(tree, "keys", "shams", "controls")),
        Row(label="Labels that their own scores contradict: keys / controls", pointer="/controls/missing",
            value=_lost(tree, "contradictory_keys", "contradictory_controls")),
        Row(label="p-value of “keys are lost in these ways more often than controls”", pointer="/controls/missing",
            value=p_value(tree.number("/controls/missing/obstruction_log10_p"))),
    ]  # fmt: skip
    return tuple(rows)


def _lost(tree: Tree, *kinds: str) -> str:
    return " / ".join(str(tree.integer(f"/controls/missing/{kind}")) for kind in kinds)


def null_rows(tree: Tree) -> tuple[Row, ...]:
    """Return the null rate, its basis, and the randomisation checks."""
    rows = [
        Row(label="Null rate used by the test", value=rate(tree.number("/null/rate")), pointer="/null/rate"),
        Row(label="Basis", value=clean(tree.text("/null/basis")), pointer="/null/basis"),
    ]  # fmt: skip
    if drawn_labels.applies(tree) or drawn_table.applies(tree):
        return tuple(rows)
    rows += [
        Row(label="Sealed floor of the null rate", value=rate(tree.number("/null/floor")), pointer="/null/floor"),
        Row(label="Upper bound from shams on this suspect", value=rate(tree.number("/null/shams/upper_bound")),
            pointer="/null/shams/upper_bound"),
        Row(label="Sham patterns", value=str(tree.integer("/null/shams/patterns")), pointer="/null/shams/patterns"),
    ]  # fmt: skip
    if tree.has("/null/shams/error"):
        bound_error = level(tree.number("/null/shams/error"))
        rows.append(Row(label="Error level of that bound", value=bound_error, pointer="/null/shams/error"))
    rows.append(_rank_row(tree))
    if tree.has("/label_code"):
        rows.append(_code_row(tree))
    else:
        rows.append(Row(label="Label code", value="not used",
                        pointer="/label_code"))  # fmt: skip
    return tuple(rows)


def _rank_row(tree: Tree) -> Row:
    label = "Rank of the secret pattern among the sham patterns"
    if not tree.has("/null/pattern_rank"):
        return Row(label=label, value=NOT_MEASURED, pointer="/null/pattern_rank")
    higher, patterns = tree.integer("/null/pattern_rank/at_least_as_high"), tree.integer("/null/pattern_rank/patterns")
    p = rate(tree.number("/null/pattern_rank/p_value"))
    value = f"{higher} of {patterns} shams at least as high, p = {p}"
    return Row(label=label, value=value, pointer="/null/pattern_rank")


def _code_row(tree: Tree) -> Row:
    hits, trials = tree.integer("/label_code/hits"), tree.integer("/label_code/trials")
    p, alpha = tree.number("/label_code/p_value"), tree.number("/label_code/alpha_look")
    draws = tree.integer("/label_code/draws")
    value = f"{hits} of {trials} answers follow the code, p = {rate(p)} over {draws:,} redraws (level {level(alpha)})"
    return Row(label="Label code", value=value, pointer="/label_code")


def test_rows(tree: Tree) -> tuple[Row, ...]:
    """Return the test's figures."""
    log10_e = tree.number("/test/log10_e")
    rows = [
        Row(label="Test", value=clean(tree.text("/test/name")), pointer="/test/name"),
        Row(label="Design", value=clean(tree.text("/test/design")), pointer="/test/design"),
        Row(label="Level α of the claim", value=level(tree.number("/test/alpha")), pointer="/test/alpha"),
        Row(label="Part of it spent on the test",
            value=level(tree.number("/test/alpha_test")), pointer="/test/alpha_test"),
    ]  # fmt: skip
    if tree.has("/test/grinding_log2"):
        tries = tree.integer("/test/grinding_log2")
        value = "one" if tries == 0 else f"2{str(tries).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
        rows.append(Row(label="Secrets the owner may have tried, charged to the level", value=value,
                        pointer="/test/grinding_log2"))  # fmt: skip
    if tree.has("/test/ranks"):
        alone = " / ".join(ratio(tree.number(f"/test/ranks/log10_e_{part}")) for part in ("labels", "ranks"))
        rows.append(Row(label="Largest e-value of first labels alone / of ranks alone", value=alone,
                        pointer="/test/ranks"))  # fmt: skip
    rows += [
        Row(label="Largest e-value reached", value=ratio(log10_e), pointer="/test/log10_e"),
        Row(label="p-value of the whole procedure, one-sided, under the stated null model",
            value=p_value(tree.number("/test/log10_p")), pointer="/test/log10_p"),
    ]  # fmt: skip
    if tree.has("/fixed_test"):
        rows.append(Row(label=f"For comparison: {clean(tree.text('/fixed_test/name'))}",
                        value=p_value(tree.number("/fixed_test/log10_p")), pointer="/fixed_test/log10_p"))  # fmt: skip
    return tuple(rows)


def opinion_rows(tree: Tree) -> tuple[Row, ...]:
    """Return how the reported likelihood ratio follows from the two limits."""
    if not tree.has("/opinion/lr"):
        return ()
    limited = "the measured error rate" if tree.text("/opinion/limited_by") == "error rate" else "the null model"
    rows = [Row(label="Likelihood ratio under the stated null model alone (a calculation, not an error rate)",
                value=ratio(tree.number("/opinion/log10_lr_model")), pointer="/opinion/log10_lr_model")]  # fmt: skip
    if tree.has("/opinion/empirical"):
        claims, audits = tree.integer("/opinion/empirical/false_claims"), tree.integer("/opinion/empirical/audits")
        upper = rate(tree.number("/opinion/empirical/upper_bound"))
        rows.append(Row(label=f"Empirical error rate: {clean(tree.text('/opinion/empirical/what'))}",
                        value=f"{claims} of {audits}, at most {upper}", pointer="/opinion/empirical"))  # fmt: skip
    rows.append(Row(label=f"Reported likelihood ratio, limited by {limited}",
                    value=decimal(tree.number("/opinion/lr"), digits=2), pointer="/opinion/lr"))  # fmt: skip
    return tuple(rows)


def query_rows(tree: Tree) -> tuple[Row, ...]:
    """Return the questions used beside the forecast, the published bound and the information limit."""
    decided = tree.optional_integer("/queries/keys_until_decision")
    if tree.text("/test/design") == Design.FIXED:
        # A fixed design tests once, after all keys; where a sequential rule would have stopped is no fact about it.
        decided = None
    rows = [
        Row(label="Key samples until the test reached a boundary", value=NONE if decided is None else str(decided),
            pointer="/queries/keys_until_decision"),
        Row(label="Key samples asked in all", value=str(tree.integer("/queries/keys")), pointer="/queries/keys"),
        Row(label="All questions: keys, shams, controls, repeats", value=str(tree.integer("/queries/total")),
            pointer="/queries/total"),
        Row(label="Questions without an answer", value=str(tree.integer("/queries/failed")), pointer="/queries/failed"),
    ]  # fmt: skip
    base = "/expected_queries"
    if tree.has(f"{base}/forecast"):
        at = rate(tree.number(f"{base}/forecast/rate"))
        quantiles = " / ".join(
            "–" if (n := tree.optional_integer(f"{base}/forecast/{name}")) is None else str(n)
            for name in ("median", "q95", "q99")
        )
        rows += [
            Row(label=f"Forecast for an unchanged copy (hit rate {at}): mean",
                value=decimal(tree.number(f"{base}/forecast/mean")), pointer=f"{base}/forecast/mean"),
            Row(label="Forecast: median / 95th / 99th percentile", value=quantiles, pointer=f"{base}/forecast"),
            Row(label="Forecast: probability of a decision for derivation",
                value=probability(tree.number(f"{base}/forecast/power")), pointer=f"{base}/forecast/power"),
        ]  # fmt: skip
    if tree.has(f"{base}/bound"):
        mean, ceiling = tree.number(f"{base}/bound/mean"), tree.integer(f"{base}/bound/ceiling")
        rows.append(Row(label="Published bound 1/p for one hit, without a null rate: mean, rounded up",
                        value=f"{decimal(mean)}, {ceiling}", pointer=f"{base}/bound"))  # fmt: skip
    if tree.has(f"{base}/lower_limit"):
        limit = decimal(tree.number(f"{base}/lower_limit/mean"))
        label = "Information limit: smallest mean any test with this level and power can have"
        rows.append(Row(label=label, value=limit, pointer=f"{base}/lower_limit"))
    return tuple(rows)


def digest(value: str) -> str:
    """Return a digest for print, or "none"."""
    return groups(clean(value, limit=128)) if value else NONE
