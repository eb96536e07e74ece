"""Real servers on loopback ports for tests: the service itself, and one that misbehaves on demand."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn
from starlette.applications import Starlette


@contextlib.contextmanager
def running(app: Starlette) -> Iterator[str]:
    """Serve an application from a thread and yield its base URL."""
    # On a busy machine a client may rest for longer than the usual five seconds and find its connection closed.
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on", timeout_keep_alive=600)
    server = uvicorn.Server(config)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


@dataclass
class Faulty:
    """Plays one prepared handler per request, the last one for ever."""

    steps: list[Callable[[BaseHTTPRequestHandler], None]]
    url: str = ""
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    """Method, path, headers and body of every request, in order."""


@contextlib.contextmanager
def faulty(*steps: Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None = None) -> Iterator[Faulty]:
    """Run a server that answers with the given handlers, one after the other."""
    state = Faulty(list(steps))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            state.requests.append((self.command, self.path, dict(self.headers), body))
            step = state.steps[min(len(state.requests), len(state.steps)) - 1]
            # A client that hangs up in the middle of a fault is what these tests are about.
            with contextlib.suppress(ConnectionError):
                step(self)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def sends(
    status: int = 200, body: bytes = b"", *, headers: dict[str, str] | None = None, close: bool = False
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a handler that sends one complete answer."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        if close:
            handler.close_connection = True
        handler.end_headers()
        handler.wfile.write(body)

    return step


def sends_raw(*pieces: bytes, pause_s: float = 0.0, hold: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a handler that writes bytes as they are, slowly if asked, and closes; ``hold`` waits for the client."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause_s)
        if hold:
            handler.connection.settimeout(20)
            handler.connection.recv(1)

    return step


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    """Wait for a condition that another thread or process brings about."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)
