"""A small HTTP service for one classifier: the reference suspect, and the base of a protected API.

- ``GET /healthz``: ``{"status": "ok"}``
- ``GET /v1/model``: name, classes, input shape, how answers look, largest batch
- ``POST /v1/predict``: ``{"answers": [{"label": 3}, …]}`` for ``{"inputs": …}``, one answer per input, in order

Inputs are ``{"shape": [n, c, h, w], "dtype": "uint8", "data_b64": "…"}`` or nested lists of integers 0-255. Every
error is ``{"error": "one line"}``: 400 not JSON, 403 not a registered client, 408 body too slow, 413 too large,
415 not ``application/json``, 422 wrong shape, type or value, 500 the model failed, 503 (with Retry-After) when the
queue is full.
"""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from auditor.errors import UsageError
from auditor.records import Inputs
from auditor.served_inputs import MAX_BODY_BYTES, parse_inputs

if TYPE_CHECKING:
    import uvicorn

Outputs = npt.NDArray[np.float32]
"""Probabilities, float32, shape (n, n_outputs)."""

Predict = Callable[[Inputs], Outputs]
"""uint8 inputs (n, channels, height, width) to probabilities; may be called from several threads."""

MAX_CONNECTIONS = 1024
BODY_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 75
GRACE_S = 10
DRAINED_BYTES = 1 << 30
"""A refused body that declares no more than this is read to its end."""
MAX_MESSAGE = 300

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerClient:
    """What changes the model's answers from client to client, such as a guard."""

    header: str
    """Request header that names the client."""
    knows: Callable[[str], bool]
    answer: Callable[[str, Outputs, Inputs], Outputs]
    """Takes client, clean outputs and inputs; may be called from several threads."""


class AnswerMode(StrEnum):
    """How much of its output the service reveals."""

    LABELS = "labels"
    """The index of the largest output only."""
    TOP_K = "top-k"
    """The label and the k largest outputs with their labels."""
    SCORES = "scores"
    """The label and every output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contract:
    """What the service accepts and how it answers."""

    name: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    answers: AnswerMode
    top_k: int
    max_batch: int
    max_body_bytes: int
    max_pending: int
    body_timeout_s: float
    per_client: PerClient | None = None


def create_app(
    predict: Predict,
    *,
    name: str,
    classes: Sequence[str],
    input_shape: tuple[int, int, int],
    answers: AnswerMode = AnswerMode.LABELS,
    top_k: int = 5,
    max_batch: int = 256,
    max_body_bytes: int | None = None,
    workers: int = 1,
    max_pending: int = 64,
    body_timeout_s: float = BODY_TIMEOUT_S,
    per_client: PerClient | None = None,
) -> Starlette:
    """Return the service as an ASGI application.

    Args:
        predict: the classifier; it may be called from ``workers`` threads at once.
        name: what the service calls itself.
        classes: one name per output.
        input_shape: (channels, height, width).
        answers: how much is revealed.
        top_k: most labels in a ``top-k`` answer.
        max_batch: most inputs per request.
        max_body_bytes: largest request body; by default what ``max_batch`` nested lists need, at most 64 MiB.
        workers: inferences that run at the same time.
        max_pending: requests being read, waiting or running at the same time; more are told to come back later.
        body_timeout_s: time a client has to send its body.
        per_client: changes every answer by client; a request that names no known one is answered with 403.

    Raises:
        UsageError: a limit is below one, or there are fewer than two classes.
    """
    if len(classes) < 2:
        raise UsageError("a classifier has at least two classes")
    if min(top_k, max_batch, workers, max_pending, *input_shape) < 1:
        raise UsageError("top-k, batch, worker and queue limits and the sides of an input are at least one")
    contract = _Contract(
        name=name,
        classes=tuple(classes),
        input_shape=input_shape,
        answers=answers,
        top_k=min(top_k, len(classes)),
        max_batch=max_batch,
        max_body_bytes=max_body_bytes or _list_body_bytes(input_shape, max_batch),
        max_pending=max_pending,
        body_timeout_s=body_timeout_s,
        per_client=per_client,
    )
    desk = _Desk(predict, contract, workers=workers)
    return Starlette(
        routes=[
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/v1/model", desk.model, methods=["GET"]),
            Route("/v1/predict", desk.predict, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=desk.lifespan,
    )


class _Desk:
    """Takes requests in, keeps the queue short and hands batches to the worker threads."""

    def __init__(self, predict: Predict, contract: _Contract, *, workers: int) -> None:
        self._predict = predict
        self._contract = contract
        self._pending = 0
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="predict")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Stop the worker threads with the service."""
        yield
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def model(self, request: Request) -> Response:
        """Describe the service."""
        contract = self._contract
        return JSONResponse(
            {
                "name": contract.name,
                "classes": list(contract.classes),
                "input_shape": list(contract.input_shape),
                "answers": contract.answers.value,
                "max_batch": contract.max_batch,
            }
        )

    async def predict(self, request: Request) -> Response:
        """Answer one batch."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "send the inputs as application/json")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "compressed requests are not accepted")
        predict = _for_client(self._predict, self._contract.per_client, request)
        # Counted from the first byte of the body on, so that buffered bodies are bounded too.
        if self._pending >= self._contract.max_pending:
            raise HTTPException(503, "too many requests are waiting", headers={"Retry-After": "1"})
        self._pending += 1
        try:
            body = await _read_body(request, self._contract)
            # Parsing a large body takes as long as a small inference; neither may block the event loop.
            loop = asyncio.get_running_loop()
            content = await loop.run_in_executor(self._pool, _answer, predict, self._contract, body)
        except ClientDisconnect:
            # Nobody is left to read this response; it only keeps the disconnect out of the error log.
            return Response(status_code=400)
        finally:
            self._pending -= 1
        return Response(content, media_type="application/json")


def _for_client(predict: Predict, per_client: PerClient | None, request: Request) -> Predict:
    if per_client is None:
        return predict
    client = request.headers.get(per_client.header, "")
    if not per_client.knows(client):
        raise HTTPException(403, f"name a registered client in the header {per_client.header}")
    return lambda inputs: per_client.answer(client, predict(inputs), inputs)


async def _read_body(request: Request, contract: _Contract) -> bytes:
    limit, timeout_s = contract.max_body_bytes, contract.body_timeout_s
    # The server reads and drops what is left of a refused body, so that the client gets to see the answer; a body
    # without an end is cut off instead.
    closing = {"Connection": "close"}
    message = f"the body is larger than {limit} bytes"
    declared = int(request.headers.get("content-length", "0"))
    if declared > limit:
        raise HTTPException(413, message, headers=closing if declared > DRAINED_BYTES else None)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise HTTPException(413, message, headers=closing)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {timeout_s:g} s", headers=closing) from error
    return bytes(body)


def _answer(predict: Predict, contract: _Contract, body: bytes) -> bytes:
    inputs = parse_inputs(body, input_shape=contract.input_shape, max_batch=contract.max_batch)
    try:
        outputs = predict(inputs)
        if outputs.shape != (len(inputs), len(contract.classes)) or not np.isfinite(outputs).all():
            raise ValueError("the model's outputs have a wrong shape or are not finite numbers")
    except Exception as error:
        # Answered here rather than by the server, which would drop the connection; the log keeps the traceback.
        _log.exception("the model failed on a batch of %d", len(inputs))
        raise HTTPException(500, "the model failed on this batch") from error
    return json.dumps({"answers": _render(outputs, contract)}, separators=(",", ":"), allow_nan=False).encode()


def _render(outputs: Outputs, contract: _Contract) -> list[dict[str, object]]:
    labels: list[int] = np.argmax(outputs, axis=1).tolist()
    match contract.answers:
        case AnswerMode.LABELS:
            return [{"label": label} for label in labels]
        case AnswerMode.SCORES:
            rows = zip(labels, outputs.tolist(), strict=True)
            return [{"label": label, "scores": [float(f"{score:.6g}") for score in row]} for label, row in rows]
        case AnswerMode.TOP_K:
            # Stable, so that the first entry is the label also when outputs tie.
            order = np.argsort(-outputs, axis=1, kind="stable")[:, : contract.top_k]
            return [
                {"label": label, "top": [{"label": int(j), "score": float(f"{row[j]:.6g}")} for j in best]}
                for label, row, best in zip(labels, outputs, order, strict=True)
            ]
    assert_never(contract.answers)


def _list_body_bytes(input_shape: tuple[int, int, int], max_batch: int) -> int:
    # "255, " per value, and brackets and white space for each row of each input.
    channels, height, width = input_shape
    per_input = channels * height * (width * 5 + 8) + 64
    return min(MAX_BODY_BYTES, 65536 + max_batch * per_input)


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail[:MAX_MESSAGE]}, status_code=error.status_code, headers=error.headers)


def serve(app: Starlette, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests being answered then are finished first.

    Args:
        app: the application.
        host: address or name to listen on.
        port: TCP port; 0 takes a free one.
        ready: called with the base URL once requests are accepted.

    Raises:
        UsageError: the address cannot be listened on.
    """
    import uvicorn

    class _AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started and not self.should_exit:
                ready(url)

    listener = _listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        # Logging belongs to the caller; only warnings and errors of the server reach it.
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        # A last line of defence against idle connections; the queue limit of the application answers first.
        limit_concurrency=MAX_CONNECTIONS,
    )
    server = _AnnouncingServer(config)
    with listener, _stopping(server):
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    # With the protocol left open asyncio would not turn Nagle's algorithm off, and every answer would wait 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, proto=socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or "not an address"
        raise UsageError(f"cannot listen on {host} port {port}: {reason}") from error
    return listener


@contextlib.contextmanager
def _stopping(server: "uvicorn.Server") -> Iterator[None]:
    # The server raises the signal again after its graceful stop; these handlers make that a normal return, and
    # take a signal that arrives before the server's own handlers are in place.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signal_number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
