"""A suspect behind real HTTP that remembers every question, fails on demand, and keeps its answers back."""

import base64
import json
import threading

import numpy as np
from cases import KINDS, marked
from protocols import SPEC
from starlette.responses import JSONResponse

from auditor.serving import AnswerMode, create_app


class Service:
    """A suspect behind real HTTP that remembers every question and fails on demand."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        """Pixels of every image it was sent, in order."""
        self.fail_from: int | None = None
        """Number of the prediction request from which on it answers 503."""
        self.n_requests = 0
        self.hold: threading.Event | None = None
        """Keeps answers back until it is set."""
        self.held = False
        inner = create_app(
            self._predict,
            name="suspect",
            classes=(*SPEC.classes, "extra"),
            input_shape=SPEC.shape,
            answers=AnswerMode.LABELS,
        )
        inner.add_middleware(_Watching, service=self)
        self.app = inner

    def forget(self) -> None:
        self.asked.clear()
        self.fail_from, self.n_requests = None, 0
        self.hold, self.held = None, False

    def _predict(self, inputs):
        if self.hold is not None:
            self.held = True
            assert self.hold.wait(60)
        scores = np.full((len(inputs), len(SPEC.classes) + 1), 0.01, dtype=np.float32)
        for row, image in enumerate(inputs):
            scores[row, marked(KINDS[image[0, 0, 0]], int(image[0, 0, 1]))] = 0.96
        return scores


class _Watching:
    def __init__(self, app, service):
        self.app = app
        self.service = service

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        number, self.service.n_requests = self.service.n_requests, self.service.n_requests + 1
        if self.service.fail_from is not None and number >= self.service.fail_from:
            headers = {"Retry-After": "0"}
            await JSONResponse({"error": "down"}, status_code=503, headers=headers)(scope, receive, send)
            return
        data = base64.b64decode(json.loads(message["body"])["inputs"]["data_b64"])
        self.service.asked += [data[start : start + 4] for start in range(0, len(data), 4)]

        async def replay():
            return message

        await self.app(scope, replay, send)
