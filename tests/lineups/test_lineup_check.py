"""Line-ups of table services: honest ones, cheating custodians, cheating examiners."""

import asyncio
import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import pytest
import requests
from lineup_cases import CUSTODIAN, EXAMINER, Made, asked, finished, run_audits, without_reports, write_list

from auditor import casefile
from auditor.canonical import sha256_hex
from auditor.errors import SealError, UsageError
from auditor.evidence import lineup as lists
from auditor.evidence.check import CheckOutcome
from auditor.evidence.lineup import CandidateRole
from auditor.evidence.lineup_finding import LineUpOutcome, draw_finding, finding_object
from auditor.evidence.relay_record import RecordWriter, Relayed
from auditor.lineups import custody, listing, relay
from auditor.records import Status
from auditor.suspects import open_suspect

USUAL = {"ours": ("suspect", "marked"), "p1": ("public", "innocent"), "p2": ("independent", "innocent")}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("honest"), USUAL)


@pytest.fixture
def copied(honest, tmp_path):
    shutil.copytree(honest.lineup, tmp_path / "lineup")
    shutil.copytree(honest.audits, tmp_path / "audits")
    return Made(lineup=tmp_path / "lineup", audits=tmp_path / "audits", opened=honest.opened)


def failure(made, **expected):
    """Return number and detail of the first failed step of a line-up that must not be accepted."""
    done = made.check(**expected)
    assert done.verified is None
    assert not done.report.intact
    return next((step.number, step.detail) for step in done.report.steps if step.outcome is CheckOutcome.FAIL)


def test_an_honest_line_up_finds_the_suspect(honest):
    done = honest.check(custodian_fingerprint=CUSTODIAN.fingerprint, examiner_fingerprint=EXAMINER.fingerprint)
    assert [step.outcome.value for step in done.report.steps[2:9]] == ["PASS"] * 7
    finding = draw_finding(done.verified)
    assert finding.outcome is LineUpOutcome.STANDS_OUT
    assert (finding.rank.at_least_as_high, finding.rank.candidates) == (1, 3)
    assert (finding.n_innocents, finding.false_claims, finding.refuted_by) == (2, 0, ())
    assert finding.suspect.candidate.name == "ours"
    # 1 - 0.05^(1/2): the exact bound for none of two.
    assert finding.false_claims_upper == pytest.approx(1 - 0.05**0.5)


def test_the_same_files_give_the_same_finding(honest):
    def drawn():
        done = honest.check()
        return finding_object(draw_finding(done.verified), done.verified, done.report)

    assert drawn() == drawn()


def test_every_audit_is_charged_for_the_whole_line_up(honest):
    for folder in honest.audits.iterdir():
        results = json.loads((folder / "results.json").read_bytes())
        assert results["multiplicity"]["family"] == 3


@pytest.mark.parametrize(
    ("candidates", "outcome", "rank"),
    [
        ({"s": ("suspect", "innocent"), "p": ("public", "innocent")}, LineUpOutcome.DOES_NOT_STAND_OUT, 2),
        ({"s": ("suspect", "marked"), "p": ("public", "marked")}, LineUpOutcome.NOT_ALONE, 2),
        ({"s": ("suspect", "marked"), "p": ("public", "other task")}, LineUpOutcome.INCONCLUSIVE, 2),
        ({"s": ("suspect", "other task"), "p": ("public", "innocent")}, LineUpOutcome.INCONCLUSIVE, None),
    ],
)
def test_other_outcomes(tmp_path, candidates, outcome, rank):
    done = finished(tmp_path, candidates).check()
    finding = draw_finding(done.verified)
    assert finding.outcome is outcome
    assert (None if finding.rank is None else finding.rank.at_least_as_high) == rank
    # Without a verified date no candidate refutes anything, whatever the custodian calls it.
    assert finding.refuted_by == ()


def test_the_relay_tells_nothing_of_who_answers(tmp_path):
    with asked(tmp_path, USUAL) as (made, url):
        places = [each.place for each in lists.open_lineup((made.lineup / lists.COMMITMENT).read_bytes()).placed]
        shown = [requests.get(f"{url}/{place}/v1/model", timeout=10) for place in places]
        assert len({reply.content for reply in shown}) == 1
        assert b"telling name" not in shown[0].content
        body = {"inputs": [[[[2, 1], [0, 0]]]]}
        answers = [requests.post(f"{url}/{place}/v1/predict", json=body, timeout=10) for place in places]
        headers = [{k: v for k, v in reply.headers.items() if k != "date"} for reply in (*answers, *shown)]
        assert len({tuple(sorted(h)) for h in headers}) == 1
        assert {reply.content for reply in answers} == {b'{"answers":[{"label":1}]}'}
        assert requests.get(f"{url}/{'0' * 32}/v1/model", timeout=10).status_code == 404


def test_answers_leave_at_whole_multiples_of_the_interval(monkeypatch):
    slept, sent = [], []

    async def app(scope, receive, send):
        await send({"type": "http.response.start"})
        assert not sent, "nothing may leave before its time"

    async def sleep(seconds):
        slept.append(seconds)

    async def send(message):
        sent.append(message)

    monkeypatch.setattr(relay.asyncio, "sleep", sleep)
    asyncio.run(relay._EvenlyPaced(app, interval_s=1000.0)({"type": "http"}, None, send))
    assert len(sent) == 1
    assert 990 < slept[0] < 1000


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    with asked(tmp_path / "other", USUAL) as (other, _):
        # The same services, another line-up: the first relay holds its own record.
        listed = listing.read_list(tmp_path / "other" / "candidates.toml")
        envelope = other.opened.envelope
        custody.plan(listed, seal_envelope=envelope, folder=tmp_path / "lineup", key=CUSTODIAN)
        command = [sys.executable, "-m", "auditor", "blind", "serve", str(tmp_path / "lineup"), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline()
            place = custody.read_custody(tmp_path / "lineup").candidates[0].place
            assert requests.get(f"{line.split()[-1]}/{place}/healthz", timeout=30).json() == {"status": "ok"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.stdout.close()
    assert line.startswith("serving 3 candidates at http://127.0.0.1:")


def test_the_secret_list_is_readable_by_its_owner_only(honest):
    assert (honest.lineup / lists.SECRET).stat().st_mode & 0o077 == 0


# The custodian cheats.


def reopened(made, candidates, *, record=None):
    held = custody.read_custody(made.lineup)
    path = made.lineup / lists.OPENING
    old = lists.read_opening(path.read_bytes(), commitment=held.commitment, lineup=held.lineup)
    new = dataclasses.replace(old, candidates=tuple(candidates))
    if record is not None:
        new = dataclasses.replace(new, record_sha256=sha256_hex(record))
        (made.lineup / lists.RECORD).write_bytes(record)
    path.write_bytes(lists.sign_opening(new, key=CUSTODIAN))


def test_a_custodian_who_renames_the_suspect_afterwards(copied):
    held = custody.read_custody(copied.lineup)
    roles = {CandidateRole.SUSPECT: CandidateRole.PUBLIC, CandidateRole.PUBLIC: CandidateRole.SUSPECT}
    reopened(copied, [dataclasses.replace(c, role=roles.get(c.role, c.role)) for c in held.candidates])
    number, told = failure(copied)
    assert number == 3
    assert "is not the one that was committed to" in told


def test_a_custodian_who_drops_a_candidate(copied):
    reopened(copied, custody.read_custody(copied.lineup).candidates[:-1])
    assert failure(copied) == (3, "lineup.open.json: candidate C was committed to and is not opened")


def test_a_custodian_who_adds_a_candidate_later(copied):
    held = custody.read_custody(copied.lineup).candidates
    late = dataclasses.replace(held[0], label="D", place="0" * 32, name="late", role=CandidateRole.PUBLIC, address="x")
    reopened(copied, [*held, late])
    shutil.copytree(copied.audits / "A", copied.audits / "D")
    assert failure(copied) == (3, "lineup.open.json: candidate D was added after the commitment")


def test_a_custodian_who_makes_a_new_list_after_the_audits(copied, tmp_path):
    held = custody.read_custody(copied.lineup)
    listed = [
        listing.Listed(name=c.name, role=c.role, source=held.sources[c.label], tokens=()) for c in held.candidates
    ]
    # Every service is gone by now, so that the new list is made by hand from the old one with other salts.
    fresh = [dataclasses.replace(c, salt="77" * 32) for c in held.candidates]
    signed = lists.sign_lineup(dataclasses.replace(held.lineup, placed=lists.placed_of(fresh)), key=CUSTODIAN)
    (copied.lineup / lists.COMMITMENT).write_bytes(signed)
    opened = lists.OpenedLineUp(
        commitment_sha256=sha256_hex(signed), candidates=tuple(fresh), record_sha256="",
        custodian_public_key=CUSTODIAN.public.hex(), opened_at=held.lineup.committed_at, tool_version="test",
    )  # fmt: skip
    (copied.lineup / lists.OPENING).write_bytes(lists.sign_opening(opened, key=CUSTODIAN))
    number, told = failure(copied)
    assert number == 6
    assert "not drawn with the commitment's digest" in told
    assert len(listed) == 3


def test_a_custodian_who_swaps_the_model_behind_a_place_is_found_by_asking_again(honest):
    suspect = honest.label("ours")

    def replay(candidate, inputs):
        # What the opened suspect would answer, had another model stood at its place during the audit.
        return None if candidate.label != suspect else [3] * len(inputs)

    number, told = failure(honest, replay=replay)
    assert number == 10
    assert f"candidate {suspect}, asked again" in told


def test_a_custodian_who_withholds_or_rewrites_the_record(copied):
    held = custody.read_custody(copied.lineup)
    record = copied.lineup / lists.RECORD
    whole = record.read_bytes()
    record.unlink()
    assert failure(copied)[0] == 9
    record.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert failure(copied) == (9, "relay.jsonl is not the record whose digest the custodian signed")
    # Signed anew without its last line, it no longer gives the answers of a bundle.
    reopened(copied, held.candidates, record=b"".join(whole.splitlines(keepends=True)[:-1]))
    number, told = failure(copied)
    assert number == 9
    assert "the relay did not give the answers" in told


def test_another_custodian_than_the_expected_one(honest):
    assert failure(honest, custodian_fingerprint=EXAMINER.fingerprint)[0] == 2


# The examiner cheats.


def test_an_examiner_who_audits_fewer_models(copied):
    shutil.rmtree(copied.audits / "B")
    assert failure(copied) == (4, "no bundle of candidate B")


def test_an_examiner_who_edits_a_bundle(copied):
    path = copied.audits / copied.label("p1") / "results.json"
    path.write_bytes(path.read_bytes().replace(b"not supported", b"supported"))
    number, told = failure(copied)
    assert number == 5
    assert "does not check out" in told


def test_an_examiner_who_exchanges_two_bundles(copied):
    (copied.audits / "A").rename(copied.audits / "x")
    (copied.audits / "B").rename(copied.audits / "A")
    (copied.audits / "x").rename(copied.audits / "B")
    number, told = failure(copied)
    assert number == 8
    assert "something else than the committed place" in told


def test_an_examiner_who_shows_one_bundle_twice(copied):
    shutil.rmtree(copied.audits / "B")
    shutil.copytree(copied.audits / "A", copied.audits / "B")
    assert failure(copied) == (5, "one bundle stands for two candidates")


def test_an_examiner_who_invents_answers(copied):
    # The custodian's record, signed with the opening, tells another story of one batch.
    lines = (copied.lineup / lists.RECORD).read_bytes().splitlines()
    record = copied.lineup / "other.jsonl"
    held = custody.read_custody(copied.lineup)
    writer = RecordWriter(record, commitment_sha256=sha256_hex(held.commitment), clock=casefile.utc_now)
    for number, line in enumerate(json.loads(each) for each in lines):
        answers = tuple(line["answers"]) if number else tuple(1 + each for each in line["answers"])
        writer.add(Relayed(label=line["label"], inputs_sha256=line["inputs_sha256"], answers=answers))
    writer.close()
    reopened(copied, held.candidates, record=record.read_bytes())
    number, told = failure(copied)
    assert number == 9
    assert "the relay did not give the answers of batch 0" in told


def test_examiners_who_ask_twice_other_keys_or_without_the_charge(tmp_path):
    candidates = {"s": ("suspect", "marked"), "p": ("public", "innocent")}
    with without_reports(), asked(tmp_path, candidates) as (made, url):
        run_audits(tmp_path, made, url=url)
        # A second round into another folder, of which only the first is shown.
        run_audits(tmp_path, made, url=url, name="again")
        place = custody.read_custody(made.lineup).candidates[0].place
        nonce = lists.nonce_of((made.lineup / lists.COMMITMENT).read_bytes())
        for name, family, with_nonce in (("uncharged", 1, nonce), ("undrawn", 2, b"")):
            request = dataclasses.replace(
                casefile.request(made.opened, alpha=None, max_queries=None, operator="", judge_nonce=with_nonce),
                family=family,
            )
            with open_suspect(endpoint=f"{url}/{place}") as suspect:
                casefile.verify(
                    opened=made.opened, suspect=suspect, folder=tmp_path / name, request=request, examiner=EXAMINER
                )
    custody.open_list(custody.read_custody(made.lineup), key=CUSTODIAN)
    number, told = failure(made)
    assert number == 9
    assert "that no bundle reports" in told
    for name, wanted, step in (("uncharged", "the level was divided by 1", 7), ("undrawn", "not drawn with", 6)):
        shutil.rmtree(made.audits / "A")
        shutil.copytree(tmp_path / name, made.audits / "A")
        number, told = failure(made)
        assert number == step
        assert wanted in told


# What is refused before anything is asked.


def test_lists_that_make_no_line_up(honest, tmp_path):
    def plan(*entries):
        listed = listing.read_list(write_list(tmp_path / "list.toml", entries))
        custody.plan(listed, seal_envelope=honest.opened.envelope, folder=tmp_path / "out", key=CUSTODIAN)

    for entries, told in (
        ([{"name": "x", "role": "thief", "model": "m"}], "role is one of"),
        ([{"name": "x", "role": "public", "model": "m", "endpoint": "http://x"}], "a model or an endpoint"),
        ([{"name": "x", "role": "public", "endpoint": "http://x", "time_stamps": ["t"]}], "only over a model"),
        ([{"name": "x", "role": "public", "model": "m", "price": "1"}], "takes endpoint"),
        ([{"role": "public", "model": "m"}], "needs a name"),
    ):
        with pytest.raises(UsageError, match=told):
            plan(*entries)
    assert not (tmp_path / "out").exists()


def test_a_line_up_is_opened_once_and_by_its_custodian(honest):
    held = custody.read_custody(honest.lineup)
    with pytest.raises(UsageError, match="with the key that committed"):
        custody.open_list(held, key=EXAMINER)
    with pytest.raises(UsageError, match="opened already"):
        custody.open_list(held, key=CUSTODIAN)
    with pytest.raises(UsageError, match="nothing more can be asked"), custody.relay(held, interval_s=0.0):
        pass


def test_a_changed_secret_list_is_not_served(copied):
    path = copied.lineup / lists.SECRET
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"name":"p1"', b'"name":"p9"'))
    with pytest.raises(SealError, match="not the list that was committed to"):
        custody.read_custody(copied.lineup)


def test_statuses_stay_those_of_the_bundles(honest):
    finding = draw_finding(honest.check().verified)
    for place in finding.places:
        results = json.loads((honest.audits / place.candidate.label / "results.json").read_bytes())
        assert place.status is Status(results["verdict"]["status"])
