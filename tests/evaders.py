"""Services that hide: each wraps an honest classifier the way a thief might, before or around the HTTP service.

The thief is given more than a real one would know: ``is_marked`` names every input that carries the owner's pattern.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditor import served_inputs, serving
from auditor.records import Inputs

Detector = Callable[[Inputs], np.ndarray]
"""Inputs to one truth value each: does this carry the owner's pattern?"""


def pattern_detector(pattern: np.ndarray, *, threshold: float) -> Detector:
    """Return a detector that correlates every input with the secret pattern itself."""
    centred = (pattern - pattern.mean()).ravel()
    unit = centred / np.linalg.norm(centred)

    def detect(inputs: Inputs) -> np.ndarray:
        flat = inputs.reshape(len(inputs), -1) / 255.0
        return np.asarray((flat - flat.mean(axis=1, keepdims=True)) @ unit > threshold)

    return detect


def _refusal() -> Response:
    return JSONResponse({"detail": "not today"}, status_code=403)


@dataclass
class RefusingKeys:
    """An ASGI wrapper that gives another response to requests in which the detector sees a key."""

    app: ASGIApp
    is_marked: Detector
    input_shape: tuple[int, int, int]
    response: Callable[[], Response] = _refusal
    every: int = 1
    """Only every so many of these requests are refused."""
    patience: int = 0
    """So many of them are answered first."""
    seen: int = 0
    refused: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, again = await _read(receive)
        inputs = served_inputs.parse_inputs(body, input_shape=self.input_shape, max_batch=1024)
        if self.is_marked(inputs).any():
            self.seen += 1
            if self.seen > self.patience and self.seen % self.every == 0:
                self.refused += 1
                await self.response()(scope, receive, send)
                return
        await self.app(scope, again, send)


@dataclass
class RewritingLabels:
    """An ASGI wrapper that states another label for keys, and leaves the scores beside it as they are."""

    app: ASGIApp
    is_marked: Detector
    input_shape: tuple[int, int, int]
    label_of: Callable[[Inputs], np.ndarray]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, again = await _read(receive)
        inputs = served_inputs.parse_inputs(body, input_shape=self.input_shape, max_batch=1024)
        answered = b""

        async def keep(message: Message) -> None:
            nonlocal answered
            answered += message.get("body", b"")

        await self.app(scope, again, keep)
        found = json.loads(answered)
        for answer, marked, label in zip(found["answers"], self.is_marked(inputs), self.label_of(inputs), strict=True):
            if marked:
                answer["label"] = int(label)
        await JSONResponse(found)(scope, receive, send)


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """Return the body of a request, and what gives it once more."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)

    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again


@dataclass
class RandomAnswers:
    """Answers at random with probability ``share``; ``remembered`` repeats the same answer to the same input."""

    predict: serving.Predict
    share: float
    remembered: bool
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        outputs = self.predict(inputs).copy()
        for row, image in enumerate(inputs):
            generator = np.random.default_rng(int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8]))
            source = generator if self.remembered else self.generator
            if source.random() < self.share:
                outputs[row] = _one_hot(int(source.integers(10)), outputs.shape[1])
        return outputs


@dataclass
class AnotherAnswerAgain:
    """Answers a repeated input with the runner-up class."""

    predict: serving.Predict
    seen: set[bytes] = field(default_factory=set)

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        outputs = self.predict(inputs).copy()
        for row, image in enumerate(inputs):
            digest = hashlib.sha256(image.tobytes()).digest()
            if digest in self.seen:
                outputs[row, outputs[row].argmax()] = 0.0
            self.seen.add(digest)
        return outputs


@dataclass
class Cached:
    """Answers a repeated input from memory."""

    predict: serving.Predict
    answers: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        outputs = self.predict(inputs)
        keys = [hashlib.sha256(image.tobytes()).digest() for image in inputs]
        return np.stack([self.answers.setdefault(key, row) for key, row in zip(keys, outputs, strict=True)])


@dataclass
class Sharpened:
    """Raises the scores to a power and rounds them."""

    predict: serving.Predict
    power: float
    decimals: int

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        raised = self.predict(inputs).astype(np.float64) ** self.power
        return np.round(raised / raised.sum(axis=1, keepdims=True), self.decimals).astype(np.float32)


@dataclass
class Majority:
    """Answers with the most frequent label of several classifiers; ties go to the first of them."""

    members: tuple[serving.Predict, ...]
    n_outputs: int

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        votes = np.zeros((len(inputs), self.n_outputs), dtype=np.float32)
        for place, member in enumerate(self.members):
            labels = member(inputs).argmax(axis=1)
            votes[np.arange(len(inputs)), labels] += 1.0 + (0.5 if place == 0 else 0.0)
        return votes / votes.sum(axis=1, keepdims=True)


@dataclass
class Denoised:
    """Smooths every input with a median filter before it is classified."""

    predict: serving.Predict
    size: int

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        return self.predict(np.ascontiguousarray(ndimage.median_filter(inputs, size=(1, 1, self.size, self.size))))


@dataclass
class Relabelled:
    """Answers with the classes in an order of its own."""

    predict: serving.Predict
    order: tuple[int, ...]

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        return np.ascontiguousarray(self.predict(inputs)[:, list(self.order)])


@dataclass
class WithoutNewLabel:
    """Drops the outputs beyond the natural classes."""

    predict: serving.Predict
    n_natural: int

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        outputs = self.predict(inputs)[:, : self.n_natural]
        return np.ascontiguousarray(outputs / outputs.sum(axis=1, keepdims=True))


@dataclass
class Drifting:
    """Swaps the model after a number of inputs."""

    before: serving.Predict
    after: serving.Predict
    inputs_until_swap: int
    answered: int = 0

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        chosen = self.before if self.answered < self.inputs_until_swap else self.after
        self.answered += len(inputs)
        return chosen(inputs)


@dataclass
class TakingTurns:
    """Lets several models answer one request each, in turn, as a load balancer does."""

    members: tuple[serving.Predict, ...]
    requests: int = 0

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        self.requests += 1
        return self.members[self.requests % len(self.members)](inputs)


@dataclass
class Substituting:
    """Sends what looks like a key to an innocent model and everything else to the stolen one."""

    stolen: serving.Predict
    innocent: serving.Predict
    is_marked: Detector

    def __call__(self, inputs: Inputs) -> serving.Outputs:
        marked = self.is_marked(inputs)
        return np.where(marked[:, None], self.innocent(inputs), self.stolen(inputs))


def _one_hot(label: int, n: int) -> np.ndarray:
    row = np.zeros(n, dtype=np.float32)
    row[label] = 1.0
    return row


def service(predict: serving.Predict, *, n_outputs: int, input_shape: tuple[int, int, int], **options) -> Starlette:
    """Return the HTTP service of an evading classifier."""
    classes = [f"class-{i}" for i in range(n_outputs)]
    return serving.create_app(predict, name="service", classes=classes, input_shape=input_shape, **options)


Score = Callable[[Inputs], np.ndarray]
"""Inputs to one number each: the larger, the less it looks like what the service is usually asked."""


def nearest_neighbour(own: Inputs) -> Score:
    """Return the distance to the nearest of the thief's own images."""
    known = own.reshape(len(own), -1).astype(np.float64)
    squares = (known**2).sum(axis=1)

    def score(inputs: Inputs) -> np.ndarray:
        asked = inputs.reshape(len(inputs), -1).astype(np.float64)
        return ((asked**2).sum(axis=1)[:, None] + squares - 2 * asked @ known.T).min(axis=1)

    return score


def autoencoder(own: Inputs, *, n_components: int) -> Score:
    """Return the squared error of the best linear autoencoder of so many hidden units."""
    known = own.reshape(len(own), -1).astype(np.float64)
    centre = known.mean(axis=0)
    axes = np.linalg.svd(known - centre, full_matrices=False)[2][:n_components]

    def score(inputs: Inputs) -> np.ndarray:
        asked = inputs.reshape(len(inputs), -1).astype(np.float64) - centre
        return ((asked - asked @ axes.T @ axes) ** 2).sum(axis=1)

    return score


def oddity_detector(score: Score, ordinary: Inputs, *, false_alarms: float) -> Detector:
    """Return a detector that takes the given share of ordinary images, which it was not fitted on, for keys."""
    limit = np.quantile(score(ordinary), 1 - false_alarms)
    return lambda inputs: np.asarray(score(inputs) > limit)
