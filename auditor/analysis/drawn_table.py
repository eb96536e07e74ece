"""The null law known by the draw: every cell's target class is uniform over the classes other than its own.

The guarantee: whatever the suspect is, if its answers are independent of the drawn tables, given probes, cells and the
clean model's answers, the probability that any client is named is at most the level. All answers are looked at once,
after the last planned probe; nothing is bet on the way, so no share of the level is spent on looking.

The channel follows from the sealed settings and from what the answers hold, by :func:`channel_of`, never from what they
say about the tables. For scores and labels, a probe without an answer counts as one whose classes are all tied.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log10

import numpy as np

from auditor.analysis.base import Basis, Decided, Levels, Null, Replies
from auditor.guard_keys import MICRO, GuardKeys, Integers
from auditor.records import Answer, Protocol, Sample
from auditor.stats import multiplicity
from auditor.stats.keyed_cells import (
    MIN_PROBES,
    Floats,
    Scored,
    TableTest,
    cell_table,
    label_scores,
    most_extreme_log10_p,
    probability_scores,
    redraw_values,
    table_test,
)
from auditor.stats.keyed_signs import confidence_drops, sign_table

REDRAWS = 9_999
BINS = 40


class Channel(StrEnum):
    """What of the answers the statistic reads."""

    SCORES = "scores"
    """Ranks of the revealed scores of two labels or more; hidden classes are tied last."""
    CONFIDENCE = "confidence"
    """Score of the first label alone, against the drawn signs; where the sealed guard has a second channel."""
    LABELS = "labels"
    """First labels only; supporting evidence rather than proof."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedTable:
    """The guard's keys as they were opened, with the cell of every asked probe."""

    keys: GuardKeys
    cells: Mapping[int, int]
    """Cell by index of the sealed sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFinding:
    """The test of one client's table."""

    client: str
    test: TableTest
    log10_p_holm: float
    """Adjusted over all clients of the seal."""
    named: bool
    """True where the adjusted p-value is at most the level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFindings:
    """What the answers say about every client's table."""

    channel: Channel
    missing: int
    """Probes without an answer."""
    clients: tuple[ClientFinding, ...]
    best: ClientFinding
    """The client with the smallest p-value; the first of several."""
    log10_p_least: float
    """Smallest adjusted p-value that any draw could have given with these answers: above the level, nothing could be
    decided."""
    log10_e: float
    """Mean of the clients' e-values."""
    histogram: tuple[int, ...]
    """Re-drawn values of the best client's statistic in equal parts of their range."""
    low: float
    """Smallest re-drawn value."""
    high: float
    """Largest re-drawn value."""


class DrawnTable(Basis):
    """The exactly known law of a drawn table; decides once, when everything was asked."""

    def levels(self, alpha: float) -> Levels:
        """Spend the whole level on the test."""
        claim = alpha * 2.0**-self.protocol.grinding_log2
        return Levels(claim=claim, null_bound=0.0, test=claim)

    def forecast_null(self, levels: Levels) -> float:
        """Return 1/(C-1), the chance that a cell's target scores highest."""
        return 1.0 / (len(self.spec.classes) - 1)

    def measure_null(self, grouped: Replies, samples: Mapping[int, Sample], levels: Levels) -> Null:
        """Return 1/(C-1); there are no shams."""
        rate = 1.0 / (len(self.spec.classes) - 1)
        return Null(rate=rate, bound=rate, hits=0, trials=0, missing=0)

    def key_outcomes(self, grouped: Replies, samples: Mapping[int, Sample]) -> tuple[bool | None, ...]:
        """Return that nothing is bet on single answers."""
        return (None,) * len(grouped.keys)

    def has_power(self, null_rate: float) -> bool:
        """Return False: no sequential rule decides before the last probe."""
        return False

    def futility_rate(self, null_rate: float) -> float:
        """Return the null rate; it is never used."""
        return null_rate

    def decide(self, grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels) -> Decided:
        """Return that nothing is decided while probes are still being asked."""
        return Decided(rejected=False, futile=False, outcome=None)

    def forecast_power(self, *, levels: Levels, cap: int) -> float:
        """Return 1 where the sealed table can reach the level at all, else 0.

        The sealed floor is the smallest p-value that the table can give; whether a surrogate reaches it is a question
        of its training, which nobody knows beforehand.
        """
        reachable = self.protocol.null_floor <= levels.test
        return 1.0 if reachable and self.protocol.forecast_rate > self.forecast_null(levels) else 0.0


def find_clients(grouped: Replies, table: OpenedTable, protocol: Protocol, levels: Levels) -> TableFindings | None:
    """Test every client's table; None where no probe was asked or no cell holds enough of them."""
    keys = table.keys
    rows = [reply.probe.index for reply in grouped.keys]
    reference = keys.reference[rows] / MICRO
    cells = np.array([table.cells[row] for row in rows], dtype=np.int64)
    answers = [reply.answer for reply in grouped.keys]
    channel = channel_of(answers, depth=keys.settings.depth)
    scores = _scored(answers, reference, cells, channel)
    if scores is None:
        return None
    tests = [
        table_test(scores, targets=drawn_for(keys, client, channel), seed=redraw_seed(protocol, client), draws=REDRAWS)
        for client in keys.clients
    ]
    adjusted = multiplicity.holm([test.log10_p for test in tests])
    found = tuple(
        ClientFinding(client=client, test=test, log10_p_holm=p, named=p <= log10(levels.test))
        for client, test, p in zip(keys.clients, tests, adjusted, strict=True)
    )
    best = min(found, key=lambda each: each.test.log10_p)
    values = redraw_values(scores, seed=redraw_seed(protocol, best.client), draws=REDRAWS)
    counts, _ = np.histogram(values, bins=BINS, range=(float(values.min()), float(values.max())))
    return TableFindings(
        channel=channel,
        missing=sum(reply.answer is None for reply in grouped.keys),
        clients=found,
        best=best,
        log10_p_least=min(0.0, most_extreme_log10_p(scores) + log10(len(found))),
        log10_e=multiplicity.average_log10_e([test.law.log10_e for test in tests]),
        histogram=tuple(int(count) for count in counts),
        low=float(values.min()),
        high=float(values.max()),
    )


def redraw_seed(protocol: Protocol, client: str) -> bytes:
    """Return the seed of the re-draws for one client: a function of the seal, so that anybody repeats them."""
    return hmac.digest(bytes.fromhex(protocol.order_seed), f"table redraws {client}".encode(), hashlib.sha256)


def channel_of(answers: Sequence[Answer | None], *, depth: float) -> Channel:
    """Return the channel that applies to these answers under the sealed guard.

    Scores, where more than half of the answers that came show the scores of two labels or more; else the confidence in
    the first label, where more than half show it and the sealed guard has a second channel; else labels.

    Args:
        answers: None where no answer came.
        depth: sealed depth of the second channel; 0 without one.
    """
    came = [answer for answer in answers if answer is not None]
    if 2 * sum(len(_shown(answer)) >= 2 for answer in came) > len(came):
        return Channel.SCORES
    if depth and 2 * sum(_confidence(answer) is not None for answer in came) > len(came):
        return Channel.CONFIDENCE
    return Channel.LABELS


def drawn_for(keys: GuardKeys, client: str, channel: Channel) -> tuple[int, ...]:
    """Return what was drawn for every cell of a client and is tested on this channel: targets, or signs."""
    table = keys.table(client)
    return table.signs if channel is Channel.CONFIDENCE else table.targets


def _shown(answer: Answer) -> dict[int, float]:
    return dict(answer.top or ()) if answer.scores is None else dict(enumerate(answer.scores))


def _confidence(answer: Answer) -> float | None:
    return _shown(answer).get(answer.label)


def _scored(answers: Sequence[Answer | None], reference: Floats, cells: Integers, channel: Channel) -> Scored | None:
    """Return the scores of everything that could have been drawn; None where no cell holds enough probes."""
    n = len(answers)
    used = np.ones(n, dtype=bool)
    values = np.zeros(n)
    if channel is Channel.CONFIDENCE:
        found = [None if answer is None else _confidence(answer) for answer in answers]
        used = np.array([value is not None for value in found])
        values = np.array([0.0 if value is None else value for value in found])
    if not used.any() or np.unique(cells[used], return_counts=True)[1].max() < MIN_PROBES:
        return None
    labels: Integers = np.argmax(reference, axis=1)
    if channel is Channel.CONFIDENCE:
        # A probe without its confidence is left out; whether it came does not depend on the signs.
        drops = confidence_drops(suspect=values[used], reference=reference[used].max(axis=1))
        return sign_table(drops=drops, cells=cells[used], labels=labels[used])
    return cell_table(scores=_class_scores(answers, reference, channel), cells=cells, labels=labels)


def _class_scores(answers: Sequence[Answer | None], reference: Floats, channel: Channel) -> Floats:
    n, n_classes = reference.shape
    if channel is Channel.LABELS:
        given = [-1 if answer is None else answer.label for answer in answers]
        return label_scores(labels=np.array(given, dtype=np.int64), reference=reference)
    revealed = np.full((n, n_classes), -np.inf)
    for row, answer in enumerate(answers):
        for label, score in ({} if answer is None else _shown(answer)).items():
            if label < n_classes:
                revealed[row, label] = score
    return probability_scores(suspect=revealed, reference=reference)
