import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.stats.forecast import AnswerKind, LabelSpace, Question, forecast
from auditor.stats.losses import diluted_rate, losses

QUESTION = Question(
    labels=LabelSpace.NEW_LABEL, rate=0.8, null_rate=0.1, alpha=1e-6, power=0.99, p_min=0.3, futility=0.01
)


def test_losing_nothing_is_the_plain_forecast() -> None:
    (nothing,) = losses(QUESTION, [0.0])
    assert nothing.default == forecast(QUESTION).procedures[0]
    assert losses(QUESTION, []) == ()


def test_what_is_left_decides() -> None:
    half, most = losses(QUESTION, [0.375, 0.9])
    assert half.rate == pytest.approx(0.5)
    assert half.default is not None
    assert (half.default.keys_for_power, half.default.q95) == (65, 53)
    assert most.default is None


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_refuses_shares_that_cannot_be(share: float) -> None:
    with pytest.raises(ValueError, match="loss"):
        losses(QUESTION, [share])


@pytest.mark.parametrize(("dilution", "left"), [(0.1, 0.72), (0.3, 0.56), (0.5, 0.40), (0.7, 0.24), (0.9, 0.08)])
def test_published_dilution_of_a_new_label(dilution: float, left: float) -> None:
    got = diluted_rate(rate=0.8, dilution=dilution, labels=LabelSpace.NEW_LABEL, classes=10)
    assert got == pytest.approx(left)


@given(st.floats(0.2, 1), st.floats(0, 1), st.integers(5, 100))
def test_random_answers_hit_a_drawn_label_by_chance(rate: float, dilution: float, classes: int) -> None:
    got = diluted_rate(rate=rate, dilution=dilution, labels=LabelSpace.WRONG_LABEL, classes=classes)
    assert got == pytest.approx((1 - dilution) * rate + dilution / classes)
    assert got <= rate + 1e-12


def test_scores_need_drawn_labels() -> None:
    with pytest.raises(ValueError, match="drawn"):
        Question(
            labels=LabelSpace.NEW_LABEL,
            rate=0.8,
            null_rate=0.1,
            alpha=1e-6,
            power=0.99,
            p_min=0.3,
            futility=0.01,
            answers=AnswerKind.SCORES,
        )
