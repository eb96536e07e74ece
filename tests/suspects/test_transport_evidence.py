"""Certificates, proxies and headers: what is trusted, what is recorded, what is never sent or kept."""

import base64
import dataclasses
import datetime
import hashlib
import ipaddress
import json
import ssl
import threading

import numpy as np
import pytest
import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from auditor.errors import SuspectAnswerError, SuspectRefusedError, SuspectUnavailableError, UsageError
from auditor.suspects import open_suspect
from auditor.suspects.http import HttpSuspect
from auditor.suspects.http.fitted_profile import calibrate
from auditor.suspects.http.probing import probe
from auditor.suspects.http.profile import load

TWO = np.zeros((2, 1, 4, 4), dtype=np.uint8)
ONE_TWO = np.array([1, 2])
GOOD = json.dumps({"answers": [{"label": 1}, {"label": 2}]}).encode()
PREDICTIONS = json.dumps({"predictions": [1, 2]}).encode()
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority of its own, made with the cryptography library."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
        builder = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, None), critical=True)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        self.root = builder.add_extension(identifier, critical=False).sign(self.key, hashes.SHA256())
        self.path = folder / "root.pem"
        self.path.write_bytes(self.root.public_bytes(serialization.Encoding.PEM))

    def _builder(self, name, key, *, start=NOW - DAY, end=NOW + DAY):
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )

    def server(self, name, *, address="127.0.0.1", start=NOW - DAY, end=NOW + DAY, chain=False):
        """Return a server's TLS context, and the digest of its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = (
            self._builder(subject, key, start=start, end=end)
            .add_extension(alternative, critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{name}.pem"
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        shown = certificate.public_bytes(pem) + (self.root.public_bytes(pem) if chain else b"")
        path.write_bytes(private + shown)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        return context, digest


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def trusted(authority, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.path))


def suspect_at(url, **settings):
    return HttpSuspect(url, **{"timeout_s": 10.0, "max_attempts": 1, "sleep": lambda seconds: None} | settings)


def test_the_certificate_that_was_shown_is_recorded(authority, trusted):
    context, digest = authority.server("good")
    told = json.dumps({"name": "m"}).encode()
    with (
        web.faulty(web.sends(body=told), web.sends(body=GOOD), tls=context) as server,
        suspect_at(server.url) as suspect,
    ):
        described = suspect.describe().suspect
        reply = suspect.query(TWO).reply
    assert described.certificate_sha256 == reply.certificate_sha256 == digest
    assert described.address == reply.address == "127.0.0.1"


def test_the_whole_chain_that_was_shown_is_recorded(authority, trusted):
    context, digest = authority.server("chained", chain=True)
    with web.faulty(web.sends(body=GOOD), tls=context) as server, suspect_at(server.url) as suspect:
        reply = suspect.query(TWO).reply
    root = hashlib.sha256(authority.root.public_bytes(serialization.Encoding.DER)).hexdigest()
    assert reply.certificates == (digest, root)
    assert reply.wire.certificates == reply.certificates
    assert reply.certificate_sha256 == digest


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_service_that_closes_after_every_answer_is_recorded_like_any_other(authority, trusted, encrypted):
    context, digest = authority.server("closing") if encrypted else (None, "")
    step = web.sends(body=GOOD, headers={"Connection": "close"}, close=True)
    with web.faulty(step, tls=context) as server, suspect_at(server.url) as suspect:
        replies = [suspect.query(TWO).reply for _ in range(2)]
    assert [reply.address for reply in replies] == ["127.0.0.1"] * 2
    assert [reply.certificates for reply in replies] == [(digest,) if encrypted else ()] * 2


def test_redirects_that_were_followed_are_recorded_without_their_query():
    steps = (web.sends(307, headers={"Location": "/elsewhere?token=s3cret"}), web.sends(body=GOOD))
    with web.faulty(*steps) as server, suspect_at(server.url) as suspect:
        reply = suspect.query(TWO).reply
        assert reply.redirects == (f"307 {server.url}/elsewhere",)
        assert suspect.query(TWO).reply.redirects == ()


def test_attempts_and_refusals_tell_how_their_answers_arrived():
    headers = {"Retry-After": "0", "X-Request-Id": "a1"}
    steps = (web.sends(429, headers=headers), web.sends(body=GOOD), web.sends(403, headers={"X-Request-Id": "b2"}))
    with web.faulty(*steps) as server, suspect_at(server.url, max_attempts=2) as suspect:
        (attempt,) = suspect.query(TWO).failed_attempts
        with pytest.raises(SuspectRefusedError) as caught:
            suspect.query(TWO)
    assert attempt.wire.address == caught.value.wire.address == "127.0.0.1"
    assert {"retry-after": "0", "x-request-id": "a1"}.items() <= dict(attempt.wire.headers).items()
    assert dict(caught.value.wire.headers)["x-request-id"] == "b2"


def test_an_unusable_answer_tells_how_it_arrived():
    with (
        web.faulty(web.sends(body=b"<html>")) as server,
        suspect_at(server.url) as suspect,
        pytest.raises(SuspectAnswerError) as caught,
    ):
        suspect.query(TWO)
    assert caught.value.wire.address == "127.0.0.1"
    assert caught.value.body == b"<html>"


def digest_of(body):
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


@pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
def test_an_answer_that_was_damaged_on_the_way_is_no_answer(name):
    damaged = bytes([GOOD[0] ^ 1]) + GOOD[1:]
    stated = {name: f"sha-512=:AAAA:, sha-256=:{digest_of(GOOD)}:"}
    steps = (web.sends(body=damaged, headers=stated), web.sends(body=GOOD, headers=stated))
    with web.faulty(*steps) as server, suspect_at(server.url, max_attempts=2) as suspect:
        exchange = suspect.query(TWO)
    (attempt,) = exchange.failed_attempts
    assert attempt.error == "the answer is not the one its digest was made of"
    assert exchange.reply.body == GOOD


def test_a_damaged_answer_without_a_digest_is_kept_and_never_asked_for_again():
    with (
        web.faulty(web.sends(body=b"\x7a" + GOOD[1:])) as server,
        suspect_at(server.url, max_attempts=4) as suspect,
        pytest.raises(SuspectAnswerError),
    ):
        suspect.query(TWO)
    assert len(server.requests) == 1


def test_a_service_without_a_description_is_looked_at_without_asking(authority, trusted):
    context, digest = authority.server("looked-at")
    steps = (web.sends(body=PREDICTIONS),)
    with web.faulty(*steps, tls=context) as server, suspect_at(server.url, profile=load("mlflow")) as suspect:
        described = suspect.describe().suspect
        assert server.requests == []
        suspect.query(TWO)
    assert (described.address, described.certificate_sha256) == ("127.0.0.1", digest)
    with web.faulty(web.sends(body=PREDICTIONS)) as server, suspect_at(server.url, profile=load("mlflow")) as suspect:
        described = suspect.describe().suspect
    assert (described.address, described.certificate_sha256) == ("127.0.0.1", "")


def test_another_certificate_in_the_middle_is_told(authority, trusted, caplog):
    (one, first), (two, second) = authority.server("one"), authority.server("two")
    with web.faulty(web.sends(body=GOOD, close=True), tls=one) as server, suspect_at(server.url) as suspect:
        assert suspect.query(TWO).reply.certificate_sha256 == first
        assert suspect.query(TWO).reply.certificate_sha256 == first
        assert "another TLS certificate" not in caplog.text
        with web.faulty(web.sends(body=GOOD, close=True), tls=two) as other:
            suspect._transport._target = dataclasses.replace(suspect._target, uri=other.url)
            assert suspect.query(TWO).reply.certificate_sha256 == second
    assert "shows another TLS certificate than before" in caplog.text


@pytest.mark.parametrize("profile", [None, "mlflow"], ids=["described", "looked at"])
@pytest.mark.parametrize(
    "changes",
    [{"address": "127.0.0.2"}, {"start": NOW - 3 * DAY, "end": NOW - DAY}, {"start": NOW + DAY, "end": NOW + 2 * DAY}],
    ids=["another host", "expired", "not yet valid"],
)
def test_certificates_that_are_not_valid_are_final(authority, trusted, changes, profile):
    context, _ = authority.server("bad", **changes)
    chosen = None if profile is None else load(profile)
    with web.faulty(web.sends(body=GOOD), tls=context) as server, suspect_at(server.url, profile=chosen) as suspect:
        for ask in (suspect.describe, lambda: suspect.query(TWO)):
            with pytest.raises(SuspectUnavailableError, match="its TLS certificate is not trusted"):
                ask()
    assert server.requests == []


def test_an_authority_nobody_named_is_not_trusted(authority, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    context, _ = authority.server("unknown")
    with (
        web.faulty(web.sends(body=GOOD), tls=context) as server,
        suspect_at(server.url, profile=load("mlflow")) as suspect,
        pytest.raises(SuspectUnavailableError, match="not trusted"),
    ):
        suspect.describe()


def test_a_closed_port_is_told_when_looking():
    with (
        suspect_at(f"http://127.0.0.1:{web.free_port()}", profile=load("mlflow")) as suspect,
        pytest.raises(SuspectUnavailableError, match="connection refused"),
    ):
        suspect.describe()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".test", "x..test"])
def test_hosts_that_cannot_be_looked_at(host):
    with suspect_at(f"http://{host}:1", profile=load("mlflow")) as suspect, pytest.raises(SuspectUnavailableError):
        suspect.describe()


def test_only_a_proxy_that_was_named_is_used(monkeypatch):
    with web.faulty(web.sends(body=GOOD)) as proxy, web.faulty(web.sends(body=GOOD)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        with suspect_at(server.url) as suspect:
            assert suspect.query(TWO).reply.address == "127.0.0.1"
        assert proxy.requests == []
        with suspect_at("http://suspect.test/api", proxy=proxy.url) as suspect:
            reply = suspect.query(TWO).reply
    assert [path for _, path, _, _ in proxy.requests] == ["http://suspect.test/api/v1/predict"]
    # Whoever answered behind a proxy is not known.
    assert reply.address == ""
    assert len(server.requests) == 1


def test_a_proxy_that_is_down_or_refuses_is_named():
    with (
        suspect_at("http://suspect.test", proxy=f"http://user:hunter2@127.0.0.1:{web.free_port()}") as suspect,
        pytest.raises(SuspectUnavailableError, match="the proxy does not answer") as caught,
    ):
        suspect.query(TWO)
    assert "hunter2" not in str(caught.value)
    with (
        web.faulty(web.sends(407)) as proxy,
        suspect_at("http://suspect.test", proxy=proxy.url) as suspect,
        pytest.raises(SuspectRefusedError, match="HTTP 407"),
    ):
        suspect.query(TWO)


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "foo",
        "h:3128",
        "socks5://h:1080",
        "http://",
        "http://:1",
        "http://h:99999",
        "http://us3r:hunter2 @h",
        "http://[1",
    ],
)
def test_a_proxy_that_is_no_address_is_never_passed_by(proxy):
    with web.faulty(web.sends(body=GOOD)) as server:
        asking = (
            lambda: open_suspect(endpoint=server.url, proxy=proxy),
            lambda: probe(server.url, inputs=TWO, labels=None, classes=(), proxy=proxy),
            lambda: calibrate(server.url, inputs=TWO, labels=ONE_TWO, n_classes=3, profile="mlflow", proxy=proxy),
        )
        for ask in asking:
            with pytest.raises(UsageError, match="proxy must be an http or https address") as caught:
                ask()
            assert "hunter2" not in str(caught.value)
    assert server.requests == []


def test_headers_are_kept_but_for_those_that_may_carry_secrets():
    sent = {
        "X-Request-Id": "a1",
        "X-RateLimit-Remaining": "7",
        "Set-Cookie": "session=s3cret",
        "WWW-Authenticate": "Bearer s3cret",
        "X-Auth-Token": "s3cret",
        "X-Api-Key": "s3cret",
        "X-Long": "y" * 1000,
        "X-Echo": "token was top-s3cret",
    }
    step = web.sends(body=GOOD, headers=sent)
    with web.faulty(step) as server, suspect_at(f"{server.url}/?token=top-s3cret") as suspect:
        told = dict(suspect.query(TWO).reply.headers)
    assert told["x-request-id"] == "a1"
    assert told["x-ratelimit-remaining"] == "7"
    assert told["x-long"] == "y" * 200
    assert "s3cret" not in repr(told)
    assert not {"set-cookie", "www-authenticate", "x-auth-token", "x-api-key", "x-echo"} & set(told)


@pytest.mark.parametrize(
    ("before_host", "query", "echoed"),
    [
        ("user:top-s3cret@", "", "top-s3cret"),
        # base64 of the user's name and password, from the coreutils tool.
        ("user:top-s3cret@", "", "Basic dXNlcjp0b3AtczNjcmV0"),
        ("key-as-a-name@", "", "key-as-a-name"),
        ("key-as-a-name:@", "", "key-as-a-name"),
        ("", "?token=top%2Bs3cret", "top+s3cret"),
        ("", "?token=top%2Bs3cret", "/x?token=top%2Bs3cret"),
    ],
)
def test_what_the_address_held_comes_back_in_no_spelling(before_host, query, echoed):
    body = json.dumps({"answers": [{"label": 1}, {"label": 2}], "seen": echoed}).encode()
    steps = (web.sends(body=GOOD, headers={"X-Seen": echoed, "X-Other": "1"}), web.sends(body=body))
    with web.faulty(*steps) as server, suspect_at(server.url.replace("//", f"//{before_host}") + query) as suspect:
        told = dict(suspect.query(TWO).reply.headers)
        assert "x-other" in told
        assert "x-seen" not in told
        with pytest.raises(SuspectAnswerError, match="repeats a secret") as caught:
            suspect.query(TWO)
    assert caught.value.body is None


def test_the_name_of_a_user_with_a_password_is_no_secret():
    step = web.sends(body=GOOD, headers={"X-User": "examiner-of-the-court"})
    with web.faulty(step) as server, suspect_at(server.url.replace("//", "//examiner-of-the-court:pw@")) as suspect:
        assert dict(suspect.query(TWO).reply.headers)["x-user"] == "examiner-of-the-court"


def test_looking_leaves_no_thread_behind():
    before = threading.active_count()
    with web.faulty(web.sends(body=PREDICTIONS)) as server:
        suspect = suspect_at(server.url, profile=load("mlflow"))
        suspect.describe()
        suspect.close()
    # The server's own threads end when their connections do, which may take a moment.
    web.wait_until(lambda: threading.active_count() <= before, timeout_s=10)
