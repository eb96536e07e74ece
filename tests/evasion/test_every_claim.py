"""Many ways of hiding against every kind of sealed claim, for a copy and for an innocent.

The law that holds in every cell: an innocent is never *supported*, and a copy that hides is *supported* or left open
with a reason. The few ways out are named as stated limits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import evaders
import numpy as np
import pytest
import table_claims
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp
from table_claims import CLAIMS, SHAPE, Predict, TableClaim, is_key
from web import running

from auditor import casefile, serving
from auditor.audit import Request, run_audit
from auditor.errors import SuspectRefusedError
from auditor.evidence.signing import SigningKey
from auditor.results import headline
from auditor.suspects import open_suspect

EXAMINER = SigningKey.from_seed(b"\x21" * 32)
SUPPORTED = "null-rejected"
NOT_SUPPORTED = {"guard": "null-not-rejected"}
UNSTABLE, FAILED, OBSTRUCTED = "answers-unstable", "controls-failed", "obstructed"
UNINFORMATIVE = "answers-uninformative"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of hiding: what answers, what stands before it, and which reasons may come of it."""

    of: Callable[[Predict, TableClaim], Predict] = lambda predict, claim: predict
    before: Callable[[ASGIApp], ASGIApp] = lambda app: app
    answers: serving.AnswerMode = serving.AnswerMode.SCORES
    top_k: int = 3
    batch_size: int = 64
    copy: tuple[str, ...] = (SUPPORTED,)
    innocent: tuple[str, ...] = ()
    """Besides the reason of an open innocent."""
    special: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Reasons of both for the claims that this way of hiding treats differently."""


def honest(claim: TableClaim) -> Predict:
    """Answer as nearly every model of the task does."""

    def predict(inputs):
        natural = inputs[:, 0, 0, 1].astype(np.int64)
        scores = np.full((len(inputs), claim.n_outputs), 0.01, dtype=np.float32)
        scores[np.arange(len(inputs)), natural] = 1.0
        return scores / scores.sum(axis=1, keepdims=True)

    return predict


def lost(**options) -> dict:
    """Say what becomes of services that withhold keys, asked one at a time."""
    return {
        "before": lambda app: evaders.RefusingKeys(app, is_key, SHAPE, **options), "batch_size": 1,
        "copy": (OBSTRUCTED,), "innocent": (OBSTRUCTED,),
    }  # fmt: skip


def reordered(claim: TableClaim) -> tuple[int, ...]:
    return (3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 10)[: claim.n_outputs]


ROWS = {
    "nothing": Row(),
    "labels only": Row(answers=serving.AnswerMode.LABELS, special={"guard": (SUPPORTED, UNINFORMATIVE)}),
    "first score only": Row(answers=serving.AnswerMode.TOP_K, top_k=1, special={"guard": (UNINFORMATIVE,)}),
    "three scores": Row(answers=serving.AnswerMode.TOP_K),
    "sharpened and rounded": Row(of=lambda predict, claim: evaders.Sharpened(predict, power=4.0, decimals=1)),
    "cached": Row(of=lambda predict, claim: evaders.Cached(predict)),
    "refuses keys": Row(**lost()),
    "refuses every second key": Row(**lost(every=2)),
    "a page for keys": Row(**lost(response=lambda: HTMLResponse("<h1>hello</h1>"))),
    "asks for patience at keys": Row(**lost(response=lambda: JSONResponse({}, status_code=429))),
    "breaks down at keys": Row(**lost(response=lambda: JSONResponse({}, status_code=500))),
    "no answer among the answers for keys": Row(**lost(response=lambda: JSONResponse({"answers": []}))),
    "refuses keys after some": Row(
        **lost(patience=30) | {"copy": (SUPPORTED, OBSTRUCTED), "innocent": (OBSTRUCTED, "budget-exhausted")}
    ),
    "another label than the scores say": Row(
        before=lambda app: evaders.RewritingLabels(app, is_key, SHAPE, lambda inputs: inputs[:, 0, 0, 1]),
        copy=(OBSTRUCTED,), innocent=(OBSTRUCTED,),
    ),
    "random each time": Row(
        of=lambda predict, claim: evaders.RandomAnswers(predict, share=0.4, remembered=False),
        copy=(UNSTABLE,), innocent=(UNSTABLE,),
    ),
    "random and remembered": Row(of=lambda predict, claim: evaders.RandomAnswers(predict, share=0.3, remembered=True)),
    "another answer when asked again": Row(
        of=lambda predict, claim: evaders.AnotherAnswerAgain(predict), copy=(UNSTABLE,), innocent=(UNSTABLE,)
    ),
    "classes in another order": Row(
        of=lambda predict, claim: evaders.Relabelled(predict, reordered(claim)), copy=(FAILED,), innocent=(FAILED,)
    ),
    "one class for everything": Row(
        of=lambda predict, claim: lambda inputs: np.eye(claim.n_outputs, dtype=np.float32)[[0] * len(inputs)],
        copy=(FAILED,), innocent=(FAILED,),
    ),
    "in turn with an innocent": Row(
        of=lambda predict, claim: evaders.TakingTurns((predict, honest(claim))), batch_size=8,
        copy=(SUPPORTED, UNSTABLE), innocent=(UNSTABLE,),
    ),
    "an innocent after the first questions": Row(
        of=lambda predict, claim: evaders.Drifting(predict, honest(claim), 150), copy=(SUPPORTED, UNSTABLE)
    ),
}  # fmt: skip
STATED_LIMIT = Row(of=lambda predict, claim: evaders.Substituting(predict, honest(claim), is_key))
"""Whoever recognises every key can answer it with another model; how well that goes is measured before sealing."""


def outcome(claim: TableClaim, predict: Predict, row: Row, tmp_path) -> tuple[str, str]:
    app: Starlette = evaders.service(
        row.of(predict, claim), n_outputs=claim.n_outputs, input_shape=SHAPE, answers=row.answers, top_k=row.top_k
    )
    with (
        running(row.before(app)) as url,
        open_suspect(endpoint=url, batch_size=row.batch_size, max_attempts=1) as suspect,
    ):
        results = run_audit(
            opened=claim.opened, suspect=suspect, folder=tmp_path / "audit", examiner=EXAMINER, request=Request(),
            clock=casefile.utc_now,
        ).results  # fmt: skip
    found = headline(results)
    return found.status.value, found.reason.value


@pytest.fixture(params=CLAIMS, scope="module")
def kind(request):
    return request.param


@pytest.mark.parametrize("name", ROWS)
def test_a_copy_that_hides_is_supported_or_left_open_with_the_reason(kind, name, tmp_path):
    row, claim = ROWS[name], table_claims.claim(kind)
    status, reason = outcome(claim, claim.copy, row, tmp_path)
    assert status != "not supported"
    assert reason in row.special.get(kind, row.copy)


@pytest.mark.parametrize("name", ROWS)
def test_an_innocent_is_never_supported_however_it_answers(kind, name, tmp_path):
    row, claim = ROWS[name], table_claims.claim(kind)
    status, reason = outcome(claim, claim.innocent, row, tmp_path)
    assert status != "supported"
    assert reason in row.special.get(kind, (NOT_SUPPORTED.get(kind, "hit-rate-excluded"), *row.innocent))


def test_requests_refused_as_a_whole_leave_a_word_of_advice(tmp_path):
    claim = table_claims.claim("guard")
    row = replace(ROWS["refuses keys"], batch_size=16)
    with pytest.raises(SuspectRefusedError, match="one at a time it may show which questions it refuses"):
        outcome(claim, claim.copy, row, tmp_path)
    assert outcome(claim, claim.copy, replace(row, batch_size=1), tmp_path / "again")[1] == OBSTRUCTED


def test_stated_limit_whoever_recognises_every_key_answers_it_with_an_innocent_model(kind, tmp_path):
    claim = table_claims.claim(kind)
    assert outcome(claim, claim.copy, STATED_LIMIT, tmp_path)[0] == "not supported"


def test_stated_limit_a_majority_that_agrees_on_keys_outvotes_the_copy(kind, tmp_path):
    claim = table_claims.claim(kind)
    row = Row(of=lambda predict, claim: evaders.Majority((predict, honest(claim), claim.innocent), claim.n_outputs))
    # Drawn labels show in the scores that a vote leaves, which is how this vote is told.
    expected = "supported" if kind in ("drawn-labels", "rival-labels") else "not supported"
    assert outcome(claim, claim.copy, row, tmp_path / "copy")[0] == expected
    assert outcome(claim, claim.innocent, row, tmp_path / "innocent")[0] == "not supported"


def test_turns_and_drifts_were_seen_by_the_service():
    claim = table_claims.claim("new-label")
    inputs = claim.opened.keys.inputs[:4]
    turns = evaders.TakingTurns((claim.copy, honest(claim)))
    assert (turns(inputs) == honest(claim)(inputs)).all()
    assert (turns(inputs) == claim.copy(inputs)).all()
