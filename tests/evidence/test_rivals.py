"""The ruling on two claims: every combination, the same for both sides."""

import itertools

import pytest

from auditor.evidence.rivals import Decision, Ruling, Side, Standing, decide_rivals, earlier_side
from auditor.evidence.whole_bundle import TrustedTime
from auditor.records import Status

YES, NO, OPEN = Status.SUPPORTED, Status.NOT_SUPPORTED, Status.INCONCLUSIVE
EARLY = TrustedTime(at="2026-01-01T00:00:00.000Z", accuracy_ms=1000)
LATE = TrustedTime(at="2026-06-01T00:00:00.000Z", accuracy_ms=1000)
TIMES = (None, EARLY, LATE)
STANDINGS = [
    Standing(status=status, sealed=sealed, in_other=in_other)
    for status, sealed, in_other in itertools.product(Status, TIMES, (None, *Status))
]


def standing(status=YES, sealed=None, in_other=None):
    return Standing(status=status, sealed=sealed, in_other=in_other)


def test_exchanging_the_sides_exchanges_the_favoured_one_and_nothing_else():
    for a, b in itertools.product(STANDINGS, STANDINGS):
        one, other = decide_rivals(a, b), decide_rivals(b, a)
        assert one.ruling is other.ruling
        assert other.favoured is (None if one.favoured is None else one.favoured.other)


def test_equal_standings_favour_nobody():
    assert all(decide_rivals(each, each).favoured is None for each in STANDINGS)


def test_whoever_is_favoured_is_supported_on_the_suspect():
    for a, b in itertools.product(STANDINGS, STANDINGS):
        favoured = decide_rivals(a, b).favoured
        assert favoured is None or {Side.A: a, Side.B: b}[favoured].status is YES


def test_without_two_verified_times_time_decides_nothing():
    for a, b in itertools.product(STANDINGS, STANDINGS):
        if a.sealed is None or b.sealed is None:
            assert decide_rivals(a, b).ruling not in (Ruling.EARLIER, Ruling.CONTRADICTION)


@pytest.mark.parametrize(
    ("a", "b", "ruling", "favoured"),
    [
        (standing(NO), standing(OPEN), Ruling.NEITHER, None),
        (standing(YES), standing(NO), Ruling.ONE, Side.A),
        (standing(YES, LATE), standing(OPEN, EARLY), Ruling.ONE, Side.A),
        # The thief's mark on top of the owner's: the owner's is in the thief's model, not the other way round.
        (standing(in_other=YES), standing(in_other=NO), Ruling.UNDERNEATH, Side.A),
        (standing(sealed=EARLY, in_other=YES), standing(sealed=LATE, in_other=NO), Ruling.UNDERNEATH, Side.A),
        (standing(sealed=LATE, in_other=YES), standing(sealed=EARLY, in_other=NO), Ruling.CONTRADICTION, None),
        (standing(in_other=YES), standing(in_other=YES), Ruling.CROSSED, None),
        (standing(sealed=EARLY, in_other=YES), standing(sealed=LATE, in_other=YES), Ruling.CONTRADICTION, None),
        (standing(sealed=EARLY), standing(sealed=LATE), Ruling.EARLIER, Side.A),
        (standing(sealed=EARLY, in_other=NO), standing(sealed=LATE, in_other=NO), Ruling.EARLIER, Side.A),
        (standing(in_other=NO), standing(in_other=NO), Ruling.UNORDERED, None),
        # One half of the cross-test alone decides nothing.
        (standing(in_other=YES), standing(in_other=None), Ruling.UNORDERED, None),
        (standing(in_other=YES), standing(in_other=OPEN), Ruling.UNORDERED, None),
        (standing(sealed=EARLY), standing(), Ruling.UNORDERED, None),
    ],
)
def test_rulings(a, b, ruling, favoured):
    assert decide_rivals(a, b) == Decision(ruling=ruling, favoured=favoured)


def test_times_within_both_accuracies_are_not_ordered():
    near = TrustedTime(at="2026-01-01T00:00:02.000Z", accuracy_ms=1000)
    past = TrustedTime(at="2026-01-01T00:00:02.001Z", accuracy_ms=1000)
    assert earlier_side(EARLY, near) is None
    assert earlier_side(EARLY, past) is Side.A
    assert earlier_side(past, EARLY) is Side.B
