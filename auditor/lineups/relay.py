"""The relay of a blind line-up: every candidate answers at an opaque place, in one manner and after equal times.

All candidates share one description, one set of headers and one form of answer, and every answer leaves at a whole
multiple of a fixed interval. What is left to tell candidates apart is what they answer, which is what the audit is
about. Each answered batch is in the custodian's record before the answer leaves.
"""

import asyncio
import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditor.errors import SuspectAnswerError
from auditor.evidence.relay_record import Relayed
from auditor.records import Answer, Inputs, InputSpec
from auditor.serving import AnswerMode, Outputs, create_app
from auditor.suspects.base import Suspect

NAME = "candidate"
MAX_BATCH = 256
INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One candidate at its place."""

    label: str
    place: str
    suspect: Suspect


def create_relay(
    seats: Sequence[Seat],
    *,
    spec: InputSpec,
    n_outputs: int,
    scores: bool,
    record: Callable[[Relayed], None],
    interval_s: float = INTERVAL_S,
) -> Starlette:
    """Return the relay as an ASGI application; each candidate answers below ``/<place>``.

    Args:
        seats: the candidates, opened.
        spec: what the key set's inputs look like.
        n_outputs: labels that are declared for every candidate.
        scores: whether scores are passed on; every candidate then reveals ``n_outputs`` of them.
        record: keeps one answered batch; called before the answer leaves, perhaps from several threads.
        interval_s: answers leave at whole multiples of this time after the question.
    """
    names = tuple(str(label) for label in range(n_outputs))
    routes = []
    for seat in seats:
        app = create_app(
            _Predictor(seat, n_outputs=n_outputs, scores=scores, record=record),
            name=NAME,
            classes=names,
            input_shape=spec.shape,
            answers=AnswerMode.SCORES if scores else AnswerMode.LABELS,
            max_batch=MAX_BATCH,
        )
        routes.append(Mount(f"/{seat.place}", app=_EvenlyPaced(app, interval_s=interval_s)))
    return Starlette(routes=routes)


class _Predictor:
    """Asks one candidate, one batch at a time, and keeps what it said."""

    def __init__(self, seat: Seat, *, n_outputs: int, scores: bool, record: Callable[[Relayed], None]) -> None:
        self._seat, self._n_outputs, self._scores, self._record = seat, n_outputs, scores, record
        self._lock = threading.Lock()

    def __call__(self, inputs: Inputs) -> Outputs:
        """Return one score per declared label: the candidate's own, or 1 for its label and 0 for all others."""
        with self._lock:
            answers = self._seat.suspect.query_all(inputs)
        outputs = self._outputs(answers)
        digest = hashlib.sha256(np.ascontiguousarray(inputs).tobytes()).hexdigest()
        # The label goes out as the largest output, which is what the examiner's transcript will say.
        labels = tuple(int(label) for label in outputs.argmax(axis=1))
        self._record(Relayed(label=self._seat.label, inputs_sha256=digest, answers=labels))
        return outputs

    def _outputs(self, answers: Sequence[Answer]) -> Outputs:
        if self._scores:
            rows = [answer.scores for answer in answers]
            if any(row is None or len(row) != self._n_outputs for row in rows):
                raise SuspectAnswerError("a candidate does not reveal the declared number of scores")
            return np.array(rows, dtype=np.float32)
        if any(answer.label >= self._n_outputs for answer in answers):
            raise SuspectAnswerError("a candidate gave a label outside the declared ones")
        outputs = np.zeros((len(answers), self._n_outputs), dtype=np.float32)
        outputs[np.arange(len(answers)), [answer.label for answer in answers]] = 1.0
        return outputs


class _EvenlyPaced:
    """Holds every response back until a whole number of intervals has passed since its request."""

    def __init__(self, app: ASGIApp, *, interval_s: float) -> None:
        self._app, self._interval_s = app, interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._app(scope, receive, hold)
        spent_s = loop.time() - started_s
        if self._interval_s > 0:
            await asyncio.sleep(math.ceil(spent_s / self._interval_s) * self._interval_s - spent_s)
        for message in held:
            await send(message)
