"""Guards an existing ASGI service without touching its code: a middleware that rewrites its JSON answers.

The service is expected to take ``{"inputs": nested lists of 0-255}`` and to answer ``{"probabilities": [[…], …]}``;
another schema needs other two lines in ``__call__``. The guard itself is the three marked lines.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from auditor.errors import UsageError
from auditor.guards import Guard  # line 1

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class GuardMiddleware:
    """Answers every client with the client's own mark; unknown clients get 403."""

    def __init__(self, app: App, *, keyset: Path, header: str = "x-client-id") -> None:
        self._app = app
        self._keyset = keyset
        self._header = header.lower().encode()
        self._guards: dict[str, Guard] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass the request on, and guard the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = dict(scope["headers"]).get(self._header, b"").decode("latin-1")
        try:
            guard = self._guards.setdefault(client, self._guards.get(client) or self._open(client))
        except UsageError:
            await _answer(send, 403, {"error": "unknown client"})
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, answer = await self._inner(scope, bytes(body))
        if status == 200:
            inputs = np.array(json.loads(body)["inputs"], dtype=np.uint8)
            answer["probabilities"] = guard(np.array(answer["probabilities"]), inputs).tolist()  # line 3
        await _answer(send, status, answer)

    def _open(self, client: str) -> Guard:
        return Guard.open(self._keyset, client_id=client)  # line 2

    async def _inner(self, scope: MutableMapping[str, Any], body: bytes) -> tuple[int, Any]:
        status, collected = 500, bytearray()

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def collect(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            collected.extend(message.get("body", b""))

        await self._app(scope, receive, collect)
        return status, json.loads(collected)


async def _answer(send: Send, status: int, content: object) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
