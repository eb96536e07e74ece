"""Asks time authorities (RFC 3161, over HTTP) for tokens; what they send is bytes until it has been verified.

The connection proves nothing and need not be secret: only a digest goes out, and a token proves itself. So plain http
is as good as https. Several authorities may be named; one that fails costs a warning and nothing else.
"""

import logging
import queue
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from auditor import __version__
from auditor.errors import AuditorError, EvidenceError, MissingPartError, UsageError
from auditor.evidence.timestamps import MAX_TOKEN_BYTES, MAX_TOKENS, read_token

logger = logging.getLogger(__name__)

TIMEOUT_S = 20.0
"""For one whole exchange, however slowly the bytes drip."""
QUERY_TYPE = "application/timestamp-query"
_CHUNK_BYTES = 4096


class TimeAuthorities:
    """The authorities a user named, in the order they were named."""

    def __init__(self, urls: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> None:
        """Take the addresses.

        Raises:
            UsageError: not http or https addresses, the same twice, or more than 32.
        """
        if len(set(urls)) != len(urls) or len(urls) > MAX_TOKENS:
            raise UsageError(f"name each time authority once, and at most {MAX_TOKENS}")
        self._named = {url: _shown(url) for url in urls}
        self._timeout_s = timeout_s

    def stamp(self, data: bytes) -> tuple[bytes, ...]:
        """Return the tokens of all authorities that gave one over ``data``; the others are warned about."""
        tokens = []
        for url, shown in self._named.items():
            try:
                tokens.append(_token(url, shown, data, timeout_s=self._timeout_s))
            except AuditorError as error:
                logger.warning("no time stamp by %s: %s", shown, error)
        if self._named and not tokens:
            logger.warning("not independently time-stamped: no authority gave a time stamp")
        return tuple(tokens)

    def exchange(self, query: bytes) -> bytes:
        """Send a ready query and return the reply of the first authority that answers at all.

        Raises:
            MissingPartError: none answers.
        """
        for url, shown in self._named.items():
            try:
                return _post(url, query, timeout_s=self._timeout_s)
            except MissingPartError as error:
                logger.warning("no time stamp by %s: %s", shown, error)
        raise MissingPartError("no time authority answered")

    def __bool__(self) -> bool:
        return bool(self._named)


def make_query(data: bytes, *, nonce: bool) -> tuple[bytes, int | None]:
    """Return a query over ``data`` that asks for the authority's certificate, and its nonce.

    A query that is carried away by hand goes without a nonce, which nobody would be there to compare.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    request = TimestampRequestBuilder(
        data=data, hash_algorithm=HashAlgorithm.SHA256, nonce=nonce, cert_req=True
    ).build()
    return request.as_bytes(), request.nonce if nonce else None


def _token(url: str, shown: str, data: bytes, *, timeout_s: float) -> bytes:
    query, nonce = make_query(data, nonce=True)
    reply = _post(url, query, timeout_s=timeout_s)
    try:
        read_token(reply, data=data, what=f"the reply of {shown}", nonce=nonce)
    except EvidenceError as error:
        raise MissingPartError(str(error)) from error
    return reply


def _post(url: str, query: bytes, *, timeout_s: float) -> bytes:
    """Post a query and return the reply's bytes, all within the time limit.

    Raises:
        MissingPartError: no complete reply of a fitting size in time.
    """
    outcome: queue.SimpleQueue[bytes | MissingPartError] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_post_now(url, query, timeout_s=timeout_s))
        except MissingPartError as error:
            outcome.put(error)

    # A socket's own limit starts again with every byte; a thread that is left behind bounds the whole exchange.
    threading.Thread(target=work, daemon=True).start()
    try:
        found = outcome.get(timeout=timeout_s)
    except queue.Empty as error:
        raise MissingPartError(f"no complete reply within {timeout_s:g} s") from error
    if isinstance(found, MissingPartError):
        raise found
    return found


def _post_now(url: str, query: bytes, *, timeout_s: float) -> bytes:
    import requests

    headers = {"Content-Type": QUERY_TYPE, "User-Agent": f"auditor/{__version__}", "Accept-Encoding": "identity"}
    body = b""
    try:
        with requests.post(
            url, data=query, headers=headers, timeout=timeout_s, stream=True, allow_redirects=False
        ) as reply:
            if reply.status_code != requests.codes.ok:
                raise MissingPartError(f"HTTP status {reply.status_code}")
            for chunk in reply.iter_content(_CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_TOKEN_BYTES:
                    raise MissingPartError(f"a reply larger than {MAX_TOKEN_BYTES} bytes")
    # The text of such an error may repeat the address, which may carry credentials; its kind says enough.
    except (requests.RequestException, OSError, ValueError) as error:
        raise MissingPartError(f"not reachable ({type(error).__name__})") from error
    return body


def _shown(url: str) -> str:
    """Return an address without credentials and query, the only form that is ever shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError("the address of a time authority is not valid") from error
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise UsageError("a time authority is named by an http or https address")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
