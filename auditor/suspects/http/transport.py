"""One attempt to get one complete answer: addresses, connections, time and size limits."""

import base64
import hashlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected
from itertools import islice
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    LocationValueError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse

from auditor.errors import SuspectAnswerError, SuspectUnavailableError, Wire
from auditor.evidence.reading import printable
from auditor.suspects.http.addresses import Target, redirected
from auditor.suspects.http.connections import Connections, Route, look_at, peer_of, session_of
from auditor.suspects.http.deadline import Deadline

MAX_HEADERS = 50
MIN_SECRET = 8
SECRET_HEADER = re.compile(r"cookie|auth|token|secret|session|signature|key", re.IGNORECASE)
CHUNK_BYTES = 64 * 1024
_STATED_DIGEST = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/]{43}=):")
MAX_REDIRECTS = 3

# Its warnings about malformed headers print the full address, which may carry a token in the query.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One complete answer, not yet believed."""

    status: int
    body: bytes
    """Decoded bytes; empty for any status but 2xx."""
    server_date: str
    retry_after: str
    address: str
    """Network address that answered; empty behind a proxy."""
    elapsed_ms: int
    certificate_sha256: str = ""
    """Digest of the TLS certificate (DER) the service showed; empty without TLS."""
    headers: tuple[tuple[str, str], ...] = ()
    """Response headers by lower-case name, those that may carry secrets left out."""
    certificates: tuple[str, ...] = ()
    """Digests of every certificate the service showed, its own first; empty without TLS."""
    redirects: tuple[str, ...] = ()
    """Where the question was sent on to, status and address without query, in order."""

    @property
    def wire(self) -> Wire:
        """How the answer arrived."""
        return Wire(
            address=self.address, certificates=self.certificates, redirects=self.redirects, headers=self.headers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt without a complete answer."""

    text: str


class Transport:
    """A pooled session to one service."""

    def __init__(
        self,
        target: Target,
        *,
        timeout_s: float,
        max_body_bytes: int,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        proxy: str | None = None,
    ) -> None:
        self._target = target
        self._headers = dict(headers or {})
        # Shorter ones would be found in any answer by chance.
        self._secrets = tuple(secret.encode() for secret in secrets if len(secret) >= MIN_SECRET)
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._deadline = Deadline(timeout_s)
        self._connections = Connections(self._deadline)
        self._session = session_of(self._connections, auth=target.auth, proxy=proxy)
        self._known: tuple[tuple[str, str, str], Route] | None = None
        # Most headers are the same in every answer.
        self._told_header = lru_cache(maxsize=4 * MAX_HEADERS)(self._told)

    def close(self) -> None:
        """Close pooled connections and stop watching them."""
        self._session.close()
        self._deadline.close()

    def cancel(self) -> None:
        """End the attempt that another thread is making, if any."""
        self._deadline.cut()

    def attempt(
        self, method: str, path: str, body: bytes | None, *, content_type: str = "application/json"
    ) -> Received | Failure:
        """Return the complete answer, or why there is none and another attempt may help.

        Raises:
            SuspectAnswerError: the answer is too large, cannot be decompressed, or leads to another service.
            SuspectUnavailableError: another attempt cannot help.
        """
        if path.startswith(":") and not urlsplit(self._target.uri).path:
            # Without a slash between them the path would be read as a port.
            path = f"/{path}"
        url = self._target.uri + path + (f"?{self._target.query}" if self._target.query else "")
        try:
            with self._deadline.running():
                received = self._send(method, url, body, content_type=content_type)
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            if not self._deadline.expired:
                return self._failure(error)
        else:
            if not self._deadline.expired:
                return received
        # A connection that the deadline cut may look like a complete answer without a length.
        return Failure(text=f"no complete answer within {self._timeout_s:g} s")

    def look(self) -> tuple[str, str]:
        """Connect without asking anything; return network address and certificate digest, empty behind a proxy.

        Raises:
            SuspectUnavailableError: no connection, or a certificate that is not trusted.
        """
        parts = urlsplit(self._target.uri)
        if self._session.proxies:
            return "", ""
        try:
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            peer = look_at(parts.scheme, parts.hostname or "", port, session=self._session, timeout_s=self._timeout_s)
            return peer.address, next(iter(peer.certificates), "")
        except (OSError, ValueError) as error:
            outcome = self._failure(error)
            raise SuspectUnavailableError(f"{self._target.uri}: {outcome.text}") from error

    def _failure(self, error: Exception) -> Failure:
        causes = tuple(_causes(error))
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            raise SuspectUnavailableError(f"{self._target.uri}: its TLS certificate is not trusted") from error
        if isinstance(error, DecodeError):
            raise SuspectAnswerError(f"{self._target.uri}: the answer's compression is broken") from error
        if isinstance(error, requests.exceptions.InvalidURL | LocationValueError | UnicodeError):
            raise SuspectUnavailableError(f"{self._target.uri}: the address cannot be used") from error
        return Failure(text=_network_error(causes))

    def _send(self, method: str, url: str, sent: bytes | None, *, content_type: str) -> Received | Failure:
        redirects: list[str] = []
        for _ in range(MAX_REDIRECTS + 1):
            started_s = time.monotonic()
            route = self._route(method, url, content_type=content_type if sent is not None else "")
            with _ended(route.ask(sent, timeout_s=self._timeout_s)) as response:
                location = response.headers.get("Location", "")
                if response.status in (301, 302, 307, 308) and location:
                    url = redirected(url, location, uri=self._target.uri)
                    redirects.append(f"{response.status} {printable(url.partition('?')[0], limit=200)}")
                    continue
                # The connection goes back to its pool once the body is read.
                peer = peer_of(response)
                body = self._read(response) if 200 <= response.status < 300 else b""
                if _is_damaged(body, response):
                    return Failure(text="the answer is not the one its digest was made of")
                return Received(
                    status=response.status,
                    body=body,
                    server_date=printable(response.headers.get("Date")),
                    retry_after=response.headers.get("Retry-After", ""),
                    address=peer.address,
                    certificate_sha256=next(iter(peer.certificates), ""),
                    certificates=peer.certificates,
                    redirects=tuple(redirects),
                    headers=self._told_headers(response),
                    elapsed_ms=round((time.monotonic() - started_s) * 1000),
                )
        raise SuspectAnswerError(f"{self._target.uri}: more than {MAX_REDIRECTS} redirects")

    def _route(self, method: str, url: str, *, content_type: str) -> Route:
        """Return how such a request is made; from one question to the next it stays the same."""
        what = (method, url, content_type)
        if self._known is None or self._known[0] != what:
            headers = {**self._headers, **({"Content-Type": content_type} if content_type else {})}
            request = self._session.prepare_request(requests.Request(method, url, headers=headers))
            self._known = (what, self._connections.route(request, session=self._session))
        return self._known[1]

    def _read(self, response: BaseHTTPResponse) -> bytes:
        body = bytearray()
        for chunk in response.stream(CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > self._max_body_bytes:
                raise SuspectAnswerError(f"{self._target.uri}: an answer is larger than {self._max_body_bytes} bytes")
        if any(secret in body for secret in self._secrets):
            raise SuspectAnswerError(f"{self._target.uri}: an answer repeats a secret that was sent; it is not kept")
        return bytes(body)

    def _told_headers(self, response: BaseHTTPResponse) -> tuple[tuple[str, str], ...]:
        told = (self._told_header(name, value) for name, value in islice(response.headers.items(), MAX_HEADERS))
        return tuple(sorted(header for header in told if header is not None))

    def _told(self, name: str, value: str) -> tuple[str, str] | None:
        """Return a header as it may be kept; None where it may hold a secret."""
        if SECRET_HEADER.search(name) or any(secret in value.encode() for secret in self._secrets):
            return None
        return printable(name.lower()), printable(value, limit=200)


@contextmanager
def _ended(response: BaseHTTPResponse) -> Iterator[BaseHTTPResponse]:
    """Give the connection of an answer back; one whose body was not read to its end is closed."""
    try:
        yield response
    finally:
        response.close()
        response.release_conn()


def _is_damaged(body: bytes, response: BaseHTTPResponse) -> bool:
    """Return whether a body is another than the service made its digest of (RFC 9530), where it states one."""
    if not body or response.headers.get("Content-Encoding", "identity") != "identity":
        return False
    for name in ("Content-Digest", "Repr-Digest"):
        stated = _STATED_DIGEST.search(response.headers.get(name, ""))
        if stated and base64.b64encode(hashlib.sha256(body).digest()).decode() != stated[1]:
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and everything behind it, the outermost first."""
    seen: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.append(current)
        yield current
        inner = (current.__cause__, current.__context__, *current.args)
        waiting += [item for item in inner if isinstance(item, BaseException)]


def _network_error(causes: tuple[BaseException, ...]) -> str:
    """Return a few words for a failed attempt; exception texts are left out because they repeat the address."""
    known: tuple[tuple[type[BaseException], str], ...] = (
        (ProxyError, "the proxy does not answer"),
        (ConnectionRefusedError, "connection refused"),
        (socket.gaierror, "the host name is not known"),
        # Errors of new connections are a kind of this one, so that the two above come first.
        (ConnectTimeoutError, "no connection"),
        (ReadTimeoutError, "no answer in time"),
        (TimeoutError, "no answer in time"),
        (RemoteDisconnected, "connection closed without an answer"),
        (ConnectionResetError, "connection reset"),
        (BrokenPipeError, "connection reset"),
        (IncompleteRead, "the answer broke off"),
        (ssl.SSLError, "no TLS connection"),
        (BadStatusLine, "not an HTTP answer"),
        (HTTPException, "not an HTTP answer"),
    )
    for kind, text in known:
        if any(isinstance(cause, kind) for cause in causes):
            return text
    return "the connection failed"
