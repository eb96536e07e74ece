"""The ledger of shown keys: written by `verify`, shown by `keys status`, and honoured before the next audit."""

import dataclasses
import json
import logging

import pytest
from cases import TableSuspect, fails_at, innocent, marked, seal_keys, small_protocol
from typer.testing import CliRunner

from auditor import casefile
from auditor.cli.app import app
from auditor.errors import EvidenceError, MissingPartError, SuspectUnavailableError, UsageError
from auditor.evidence.ledger import Showing, append_showing, ledger_path, read_ledger, shown_keys
from auditor.records import SampleKind

NONCE = bytes(range(32))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    def no_pdf(*args, **kwargs):
        raise MissingPartError("no PDF in this test")

    monkeypatch.setattr("auditor.report.pdf.make_pdf", no_pdf)
    yield
    # The command line leaves a handler on a stream that its runner has closed.
    logging.getLogger("auditor").handlers.clear()


@pytest.fixture
def opened(tmp_path):
    return seal_keys(tmp_path / "k.npz", small_protocol())


def audit(tmp_path, opened, name, *, table=marked, reuse=False, nonce=b"", trouble=None):
    kept = casefile.Ledger(path=ledger_path(tmp_path / "k.npz"), opened=opened)
    request = casefile.request(opened, alpha=None, max_queries=None, operator="me", judge_nonce=nonce)
    request = kept.admit(request, reuse=reuse)
    suspect = TableSuspect(table, trouble=trouble, batch_size=64)
    with kept.recording(tmp_path / name):
        case = casefile.verify(opened=opened, suspect=suspect, folder=tmp_path / name, request=request)
    return case, {index for kind, index in suspect.asked if kind is SampleKind.KEY}


def status(tmp_path, *more):
    return CliRunner().invoke(app, ["keys", "status", str(tmp_path / "k.npz"), *map(str, more)])


def showing(**changes):
    values = {"at": "2026-01-01T00:00:00.000Z", "suspect": "s", "by": "", "transcript_head": "00" * 32, "keys": (1, 2)}
    return Showing(**(values | changes))


def test_what_was_asked_is_what_the_ledger_says_and_it_is_not_asked_again(tmp_path, opened):
    assert json.loads(status(tmp_path, "--json").stdout)["never_shown"] == 30
    _, asked = audit(tmp_path, opened, "one")
    lines = read_ledger(ledger_path(tmp_path / "k.npz"), seal=opened.seal)
    assert [set(line.keys) for line in lines] == [asked]
    told = json.loads(status(tmp_path, "--json").stdout)
    assert told["never_shown"] == 30 - len(asked)
    assert told["showings"][0]["by"] == "me"
    with pytest.raises(UsageError, match="--reuse-keys"):
        audit(tmp_path, opened, "two")
    assert not (tmp_path / "two").exists()
    case, _ = audit(tmp_path, opened, "two", reuse=True)
    assert "shown to a suspect before" in case.results["deviations"][0]
    assert f"never shown: {30 - len(asked)} of 30" in status(tmp_path).stdout


def test_capacity_falls_with_every_key(tmp_path, opened):
    path = ledger_path(tmp_path / "k.npz")
    powers = []
    for first in range(0, 30, 10):
        powers.append(float(json.loads(status(tmp_path, "--json").stdout)["power_left"]))
        keys = tuple(range(first, first + 10))
        append_showing(path, showing(keyset_id=opened.seal.keyset_id, keys=keys), seal=opened.seal)
    powers.append(float(json.loads(status(tmp_path, "--json").stdout)["power_left"]))
    assert powers == sorted(powers, reverse=True)
    assert powers[0] > 0.9
    assert powers[-1] == 0.0


def test_keys_of_a_failed_audit_count_as_shown(tmp_path, opened):
    gone = fails_at(*range(99), error=SuspectUnavailableError("gone"))
    with pytest.raises(SuspectUnavailableError):
        audit(tmp_path, opened, "one", trouble=gone, table=innocent)
    (line,) = read_ledger(ledger_path(tmp_path / "k.npz"), seal=opened.seal)
    assert line.keys


def test_a_used_folder_adds_nothing(tmp_path, opened):
    audit(tmp_path, opened, "one")
    with pytest.raises(UsageError):
        audit(tmp_path, opened, "one", reuse=True)
    assert len(read_ledger(ledger_path(tmp_path / "k.npz"), seal=opened.seal)) == 1


def test_a_tampered_ledger_is_refused(tmp_path, opened):
    path, seal = ledger_path(tmp_path / "k.npz"), opened.seal
    for n in range(3):
        append_showing(path, showing(keyset_id=seal.keyset_id, at=f"2026-01-0{n + 1}T00:00:00.000Z"), seal=seal)
    # A clock that was set back neither breaks the chain nor goes unnoticed in it.
    append_showing(path, showing(keyset_id=seal.keyset_id), seal=seal)
    assert shown_keys(read_ledger(path, seal=seal)) == {1, 2}
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for altered in (data[:-1], b"".join(lines[1:]), lines[0] + lines[2], data.replace(b"[1,2]", b"[1,3]", 1)):
        path.write_bytes(altered)
        with pytest.raises(EvidenceError):
            read_ledger(path, seal=seal)
        assert status(tmp_path).exit_code == 5
    path.write_bytes(data)
    with pytest.raises(EvidenceError):
        read_ledger(path, seal=dataclasses.replace(seal, keyset_id="00" * 16))
