"""Addresses of services: what of them may be shown, where a redirect may lead, how long to wait."""

import base64
import email.utils
import re
from dataclasses import dataclass
from datetime import UTC
from urllib.parse import SplitResult, unquote, unquote_plus, urljoin, urlsplit

from requests.auth import HTTPBasicAuth

from auditor.errors import SuspectAnswerError, UsageError
from auditor.evidence.reading import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a service is."""

    uri: str
    """Address without credentials and query; the only form that is ever shown."""
    query: str
    auth: HTTPBasicAuth | None


def parse_address(base_url: str) -> Target:
    """Split a base URL into what may be shown and what may not.

    Raises:
        UsageError: not an http or https address; the message never repeats it.
    """
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError("the endpoint is not a valid address") from error
    if parts.scheme not in ("http", "https") or not host or not base_url.isprintable() or " " in base_url:
        raise UsageError("the endpoint must be an http or https address such as http://127.0.0.1:8000")
    shown = f"[{host}]" if ":" in host else host
    shown += f":{port}" if port is not None else ""
    auth = None
    if parts.username is not None:
        auth = HTTPBasicAuth(unquote(parts.username).encode(), unquote(parts.password or "").encode())
    return Target(
        uri=f"{parts.scheme}://{shown}{parts.path.rstrip('/')}",
        query=parts.query,
        auth=auth,
    )


def check_proxy(proxy: str | None) -> None:
    """Refuse what is no proxy's address; None, which means a direct connection, passes.

    Raises:
        UsageError: not an http or https address; the message never repeats it.
    """
    if proxy is None:
        return
    try:
        parse_address(proxy)
    except UsageError as error:
        # An empty one, as from a variable that is not set, would otherwise mean a direct connection.
        raise UsageError("the proxy must be an http or https address such as http://127.0.0.1:3128") from error


def secrets_of(target: Target) -> tuple[str, ...]:
    """Return what an address carries that must not come back, in each spelling in which a service may repeat it.

    These are the password, or the user's name where it stands without one, the two together as they are sent, and the
    values of the query.
    """
    found: list[str] = []
    if target.auth is not None:
        name, password = _as_bytes(target.auth.username), _as_bytes(target.auth.password)
        sent = base64.b64encode(name + b":" + password).decode("ascii")
        found += [(password or name).decode("utf-8", "replace"), sent]
    for part in target.query.split("&"):
        value = part.partition("=")[2]
        found += [value, unquote_plus(value)]
    return tuple(dict.fromkeys(secret for secret in found if secret))


def retry_after_s(text: str, *, now_s: float) -> float | None:
    """Return the wait that a Retry-After header asks for (seconds or HTTP date), or None when it says nothing."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now_s)
    except (TypeError, ValueError, OverflowError):
        return None


def redirected(url: str, location: str, *, uri: str) -> str:
    """Return where a redirect leads, as long as it stays with the service.

    Raises:
        SuspectAnswerError: it leads to another service, or nowhere.
    """
    # Another host is another suspect; whoever means that one names it.
    old = urlsplit(url)
    try:
        new = urlsplit(urljoin(url, location))
        allowed = _same_service(old, new)
    except ValueError as error:
        raise SuspectAnswerError(f"{uri}: redirects to something that is no address") from error
    if not allowed:
        host = printable(new.hostname) or "no host"
        raise SuspectAnswerError(f"{uri}: redirects to another service ({host}), which is not asked")
    return new._replace(netloc=new.netloc.rpartition("@")[2]).geturl()


def _as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _same_service(old: SplitResult, new: SplitResult) -> bool:
    if old.hostname != new.hostname:
        return False
    if old.scheme == new.scheme:
        return _port(old) == _port(new)
    return (old.scheme, _port(old), new.scheme, _port(new)) == ("http", 80, "https", 443)


def _port(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else {"http": 80, "https": 443}.get(parts.scheme, 0)
