"""Fetching tokens from real authorities on localhost, and everything that may come back instead."""

import time

import authorities
import pytest
from web import free_port

from auditor.errors import MissingPartError, UsageError
from auditor.evidence.timestamps import MAX_TOKEN_BYTES, TokenState, read_token, verify_tokens
from auditor.time_authority import TimeAuthorities, make_query

DATA = b"a sealed file\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def url(authority):
    with authorities.serving(authority.reply) as address:
        yield address


def test_a_token_comes_back_and_verifies(authority, url):
    (token,) = TimeAuthorities([url]).stamp(DATA)
    (found,) = verify_tokens({"t": token}, data=DATA, roots=authority.roots)
    assert found.state is TokenState.VERIFIED
    assert found.token.nonce is not None


def test_certomancers_authority_is_understood(tmp_path):
    """A second implementation of the protocol, with keys and certificates made on the spot."""
    from authorities import certomancer_authority

    reply, roots = certomancer_authority(tmp_path)
    with authorities.serving(reply) as address:
        (token,) = TimeAuthorities([address]).stamp(DATA)
    assert verify_tokens({"t": token}, data=DATA, roots=roots)[0].state is TokenState.VERIFIED


def test_one_failing_authority_only_warns(url, caplog):
    down = f"http://127.0.0.1:{free_port()}/"
    assert len(TimeAuthorities([down, url]).stamp(DATA)) == 1
    assert down in caplog.text
    assert "not independently" not in caplog.text


def test_no_authority_at_all_says_so(caplog):
    assert TimeAuthorities([f"http://127.0.0.1:{free_port()}/"]).stamp(DATA) == ()
    assert "not independently time-stamped" in caplog.text
    assert TimeAuthorities([]).stamp(DATA) == ()


def _other_nonce(authority):
    return lambda query: authority.reply(make_query(DATA, nonce=True)[0])


def _other_data(authority):
    return lambda query: authority.reply(make_query(b"other", nonce=True)[0])


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (lambda a: lambda query: b"", "not a time stamp"),
        (lambda a: lambda query: b"<html>log in</html>", "not a time stamp"),
        (lambda a: lambda query: a.reply(query)[:-20], "not a time stamp"),
        (lambda a: lambda query: b"\0" * (MAX_TOKEN_BYTES + 1), "larger than"),
        (_other_nonce, "nonce differs"),
        (_other_data, "over other bytes"),
    ],
    ids=["empty", "html", "cut short", "huge", "other nonce", "other bytes"],
)
def test_bad_replies_are_warned_about_and_never_kept(authority, caplog, reply, told):
    with authorities.serving(reply(authority)) as address:
        assert TimeAuthorities([address]).stamp(DATA) == ()
    assert told in caplog.text


@pytest.mark.parametrize("status", [302, 401, 500])
def test_other_statuses_are_no_tokens(authority, caplog, status):
    with authorities.serving(authority.reply, status=status) as address:
        assert TimeAuthorities([address]).stamp(DATA) == ()
    assert f"HTTP status {status}" in caplog.text


def test_a_silent_authority_ends_with_the_time_limit(caplog):
    with authorities.serving(lambda query: time.sleep(1.0) or b"") as address:
        assert TimeAuthorities([address], timeout_s=0.2).stamp(DATA) == ()
    assert "no time stamp by" in caplog.text


def test_credentials_in_an_address_are_never_shown(caplog):
    secret = f"http://user:hunter2@127.0.0.1:{free_port()}/tsr?token=hunter3"
    assert TimeAuthorities([secret]).stamp(DATA) == ()
    assert "hunter" not in caplog.text


@pytest.mark.parametrize("address", ["", "ftp://a/", "file:///etc/passwd", "http://", "http://a b/", "http://[::1/"])
def test_addresses_that_are_none_are_usage(address):
    with pytest.raises(UsageError):
        TimeAuthorities([address])


def test_the_same_authority_twice_is_usage():
    with pytest.raises(UsageError):
        TimeAuthorities(["http://a/", "http://a/"])


def test_exchange_takes_the_first_that_answers(authority, url):
    query, nonce = make_query(DATA, nonce=True)
    reply = TimeAuthorities([f"http://127.0.0.1:{free_port()}/", url]).exchange(query)
    assert read_token(reply, data=DATA, what="t", nonce=nonce).nonce == nonce
    with pytest.raises(MissingPartError):
        TimeAuthorities([f"http://127.0.0.1:{free_port()}/"]).exchange(query)


def test_a_query_to_carry_away_is_read_by_openssl(tmp_path):
    import subprocess

    query, nonce = make_query(DATA, nonce=False)
    assert nonce is None
    (tmp_path / "q.tsq").write_bytes(query)
    done = subprocess.run(
        ["openssl", "ts", "-query", "-in", tmp_path / "q.tsq", "-text"], capture_output=True, text=True, check=True
    )
    assert "Certificate required: yes" in done.stdout
    assert "Nonce: unspecified" in done.stdout
