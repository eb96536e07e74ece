"""Pooled connections to one service, which know who is at their other end.

``requests`` says how a request is made: authentication, TLS roots, proxies, pools. The exchange itself is asked of the
pool, because from one question to the next only the body differs and everything else is known already.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import NamedTuple, cast

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util import Retry

from auditor import __version__
from auditor.canonical import sha256_hex
from auditor.errors import UsageError
from auditor.suspects.http.deadline import Deadline

_ONCE = Retry(False)


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    address: str = ""
    """Network address; empty behind a proxy."""
    certificates: tuple[str, ...] = ()
    """SHA-256 of every TLS certificate that was shown (DER), the service's own first; empty without TLS."""


class Route(NamedTuple):
    """One kind of request with all of it but the body: what is sent, where, and through which pool."""

    method: str
    target: str
    headers: Mapping[str, str]
    pool: HTTPConnectionPool

    def ask(self, body: bytes | None, *, timeout_s: float) -> BaseHTTPResponse:
        """Send the request and return the answer, its body not read yet.

        Raises:
            urllib3.exceptions.HTTPError: no answer; nothing is sent a second time.
        """
        return self.pool.urlopen(
            self.method,
            self.target,
            body=body,
            headers=self.headers,
            retries=_ONCE,
            redirect=False,
            assert_same_host=False,
            timeout=timeout_s,
            preload_content=False,
        )


class Connections(HTTPAdapter):
    """The usual adapter, whose connections tell the deadline which socket they read from and remember their peer.

    Args:
        deadline: ends attempts that take too long altogether.
    """

    def __init__(self, deadline: Deadline) -> None:
        class Plain(HTTPConnection):
            peer = Peer()

            def connect(self) -> None:
                super().connect()
                self.peer = _peer(self)

            def getresponse(self) -> HTTPResponse:  # type: ignore[override]
                deadline.reads_from(self.sock)
                return super().getresponse()

        class Secure(HTTPSConnection):
            peer = Peer()

            def connect(self) -> None:
                super().connect()
                self.peer = _peer(self)

            def getresponse(self) -> HTTPResponse:  # type: ignore[override]
                deadline.reads_from(self.sock)
                return super().getresponse()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        super().__init__(pool_connections=1, pool_maxsize=2, max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def route(self, request: requests.PreparedRequest, *, session: requests.Session) -> Route:
        """Return where a prepared request goes, as the session's TLS roots and proxies have it.

        Raises:
            requests.RequestException: the address or the proxy's cannot be used.
            urllib3.exceptions.HTTPError: the same, found later.
        """
        verify = session.verify or True
        # An HTTP pool, whose type requests states more loosely.
        pool = cast(
            "HTTPConnectionPool", self.get_connection_with_tls_context(request, verify, proxies=session.proxies)
        )
        self.cert_verify(pool, request.url, verify, None)  # type: ignore[no-untyped-call]
        return Route(
            method=request.method or "GET",
            target=self.request_url(request, session.proxies),
            # The length is that of a body which each question brings along.
            headers={name: value for name, value in request.headers.items() if name.lower() != "content-length"},
            pool=pool,
        )


def peer_of(response: BaseHTTPResponse) -> Peer:
    """Return who sent an answer whose body was not read yet."""
    peer = getattr(response.connection, "peer", None)
    return peer if isinstance(peer, Peer) else Peer()


def session_of(connections: Connections, *, auth: HTTPBasicAuth | None, proxy: str | None) -> requests.Session:
    """Return a session that takes nothing from the environment but ``REQUESTS_CA_BUNDLE``.

    Raises:
        UsageError: that variable names no file.
    """
    session = requests.Session()
    # Nothing comes from the environment unseen: a .netrc entry would send its owner's password to a suspect, and a
    # proxy nobody named would stand between the examiner and whoever answers.
    session.trust_env = False
    session.proxies = {} if proxy is None else {"http": proxy, "https": proxy}
    bundle = os.environ.get("REQUESTS_CA_BUNDLE", "")
    if bundle and not os.path.exists(bundle):
        raise UsageError("REQUESTS_CA_BUNDLE names a file that does not exist")
    session.verify = bundle or True
    session.auth = auth
    # Cookies would let a service recognise the audit from one question to the next.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update(
        {"User-Agent": f"auditor/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}
    )
    session.mount("http://", connections)
    session.mount("https://", connections)
    return session


def look_at(scheme: str, host: str, port: int, *, session: requests.Session, timeout_s: float) -> Peer:
    """Connect without asking anything and return who is there.

    Raises:
        OSError: no connection, or a certificate that is not trusted.
    """
    with socket.create_connection((host, port), timeout=timeout_s) as connected:
        address = str(connected.getpeername()[0])
        if scheme != "https":
            return Peer(address=address)
        with _trusting(session.verify).wrap_socket(connected, server_hostname=host) as secured:
            own = sha256_hex(secured.getpeercert(binary_form=True) or b"")
            return Peer(address=address, certificates=(own,))


def _trusting(bundle: bool | str | None) -> ssl.SSLContext:
    """Return what verifies certificates as the session does: against the named bundle, or the usual roots."""
    trusted = bundle if isinstance(bundle, str) else certifi.where()
    if os.path.isdir(trusted):
        return ssl.create_default_context(capath=trusted)
    return ssl.create_default_context(cafile=trusted)


def _peer(connection: HTTPConnection) -> Peer:
    """Return who is at the other end of a connection that was just made.

    It is asked then, because a service that closes after every answer takes the socket along before one could look.
    """
    connected = connection.sock
    address = "" if connection.proxy is not None else str(connected.getpeername()[0])
    return Peer(address=address, certificates=_certificates(connected))


def _certificates(connected: object) -> tuple[str, ...]:
    if not isinstance(connected, ssl.SSLSocket):
        return ()
    # Public from Python 3.13 on; before, the same method is only on the object behind the socket.
    shown = getattr(connected, "get_unverified_chain", None)
    if shown is not None:
        return tuple(sha256_hex(certificate) for certificate in shown())
    behind = getattr(connected, "_sslobj", None)
    shown = getattr(behind, "get_unverified_chain", None)
    if shown is not None:
        return tuple(sha256_hex(ssl.PEM_cert_to_DER_cert(certificate.public_bytes())) for certificate in shown())
    own = connected.getpeercert(binary_form=True)
    return () if own is None else (sha256_hex(own),)
