"""Audits that are killed with SIGKILL at every step, cut off, or out of disk, and go on."""

import fcntl
import json
import os
import shutil
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from cases import seal_keys, small_protocol
from killing import Killer, steps
from typer.testing import CliRunner
from watched import Service
from web import running, wait_until

from auditor.cli.app import app
from auditor.evidence.declarations import form_text
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import read_transcript

BETWEEN = (
    "4 seal written",
    "5 body stored",
    "5 stage 1 answered",
    "6 closing line torn",
    "7 protocol written",
    "7 owner's key written",
    "7 examiner's key written",
    "8 certificate written",
    "8 annexes written",
    "9 CHECK.txt written",
)
"""Further places inside the numbered steps, for ``make slow``."""
FRESH = [
    pytest.param(name, marks=pytest.mark.slow) if name in BETWEEN else name for name in steps() if name[0].isdigit()
]
"""Steps of an audit that nothing has disturbed before."""
ANNOUNCED = ("5 request written", "5 response written", "5 stage 2 in flight")
"""Steps at which the process dies between the record of a question and the question."""
IN_FLIGHT = (*ANNOUNCED, "5 answer received", "5 body stored", "5 response torn")
"""Steps at which the process dies between the record of a question and that of its answer."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Yield key set, running service, its address and a killer; an undisturbed audit lies in ``whole``."""
    folder = tmp_path_factory.mktemp("site")
    # With 2 keys in stage 1 the decision needs stage 2.
    seal_keys(folder / "k.npz", small_protocol(opening_keys=2))
    service, killer = Service(), Killer(folder / "home")
    try:
        with running(service.app) as url:
            yield Site(folder, service, url, killer)
    finally:
        killer.close()


class Site:
    """An audit that nothing disturbed, and the means to disturb others."""

    def __init__(self, folder, service, url, killer):
        self.folder, self.service, self.url, self.killer = folder, service, url, killer
        code, _, stderr = self.verify("--out", folder / "whole")
        assert code == 0, stderr
        self.results = results_of(folder / "whole")
        self.planned = Counter(service.asked)

    def verify(self, *options, **how):
        fixed = ("--keyset", self.folder / "k.npz", "--endpoint", self.url, "--batch-size", "16")
        # An earlier audit in the same ledger would divide the level of this one.
        place = options[options.index("--resume" if "--resume" in options else "--out") + 1]
        return self.killer.run("verify", *fixed, "--ledger", f"{place}.ledger", *options, **how)


def results_of(folder):
    results = json.loads((folder / "results.json").read_bytes())
    # Resumptions are looked at on their own.
    results["resumed"] = [text for text in results["deviations"] if "resumed" in text]
    del results["deviations"]
    return results


def checked(folder):
    done = CliRunner().invoke(app, ["check", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    steps_found = {step["title"]: step for step in json.loads(done.stdout)["steps"]}
    assert all(step["outcome"] != "FAIL" for step in steps_found.values())
    return steps_found


def transcript_of(folder):
    return read_transcript((folder / "transcript.jsonl").read_bytes())


@pytest.fixture
def audit(site, tmp_path):
    """Return the service, which has forgotten what earlier tests asked."""
    site.service.forget()
    return tmp_path / "audit"


@pytest.mark.parametrize("step", FRESH)
def test_killed_at_every_step_and_resumed_gives_the_same_verdict(site, audit, step):
    with_pdf = step == "8 pdf signed"
    code, _, stderr = site.verify("--out", audit, step=step, pdf=with_pdf)
    assert code == -signal.SIGKILL, stderr
    before = {path: path.read_bytes() for path in audit.rglob("*") if path.is_file() and path.suffix != ".part"}
    code, stdout, stderr = site.verify("--resume", audit, pdf=with_pdf)
    assert code == 0, stderr
    assert stdout.startswith("supported")
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    detail = checked(audit)["transcript"]["detail"]
    transcript = transcript_of(audit)
    assert ("resumed 1 time" in detail) == bool(found["resumed"]) == bool(transcript.resumptions)
    # The suspect's own log: only what was in flight came twice.
    extra = Counter(site.service.asked) - site.planned
    retried = [batch for batch in transcript.batches if batch.retried_at]
    assert len(retried) == (step in IN_FLIGHT)
    if not retried or step in ANNOUNCED:
        assert not extra
    else:
        assert sum(extra.values()) == len(retried[0].positions)
    # Nothing that was on disk was changed; the transcript only grew.
    for path, data in before.items():
        now = path.read_bytes() if path.exists() else b""
        if path.name == "transcript.jsonl":
            whole = data[: data.rfind(b"\n") + 1]
            assert now.startswith(whole)
        elif "custody" not in path.name:
            assert now == data, path
    assert not list(audit.rglob("*.part"))


AGAIN = [name for name in steps() if not name[0].isdigit() and "Ctrl-C" not in name]


@pytest.mark.parametrize("step", AGAIN)
def test_killed_while_resuming(site, audit, step):
    if step == "head set aside":
        interrupted(site, audit)
    else:
        code, _, stderr = site.verify("--out", audit, step="5 request written")
        assert code == -signal.SIGKILL, stderr
    code, _, stderr = site.verify("--resume", audit, step=step)
    assert code == -signal.SIGKILL, stderr
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    assert len(found["resumed"]) == (1 if step in ("resumption torn", "head set aside") else 2)
    assert not Counter(site.service.asked) - site.planned
    checked(audit)


def interrupted(site, folder, at=3):
    """Audit until Ctrl-C strikes while the given request is answered."""
    code, stdout, stderr = site.verify("--out", folder, step=f"Ctrl-C at {at}")
    assert code == 130, stderr
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    return code, stdout, stderr


def test_an_interrupted_audit_goes_on_and_keeps_what_it_had_signed(site, audit):
    interrupted(site, audit)
    before = {path.relative_to(audit).as_posix(): path.read_bytes() for path in audit.rglob("*") if path.is_file()}
    checked(audit)
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    for path, data in before.items():
        kept = audit / path
        if path == "transcript.jsonl":
            assert kept.read_bytes().startswith(data)
            continue
        aside = audit / "superseded" / f"1.{kept.name}"
        assert data in [place.read_bytes() for place in (kept, aside) if place.exists()], path
    assert (audit / "superseded" / "1.manifest.dsse.json").exists()
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    (told,) = found["resumed"]
    assert "the user had interrupted it; 3 of 4 batches had been answered; 1 without an answer" in told
    assert "resumed 1 time, goes on from 1 signed before a stop" in checked(audit)["transcript"]["detail"]
    assert not Counter(site.service.asked) - site.planned


def paper(folder):
    """Return a witness's key and the option that brings declarations along."""
    SigningKey.generate().write_pem(folder / "w.pem")
    (folder / "d.toml").write_text(form_text().replace('number = ""', 'number = "4 O 1/26"', 1))
    return folder / "w.pem", ("--declarations", folder / "d.toml")


def filed(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_made_over_an_interrupted_audit_is_set_aside_with_it(site, audit, tmp_path):
    witness, declared = paper(tmp_path)
    code, _, stderr = site.verify("--out", audit, *declared, step="Ctrl-C at 3")
    assert code == 130, stderr
    filed("cosign", audit, "--key", witness, "--role", "witness")
    filed("custody", "add", audit, "--event", "noted", "--by", "A. Examiner")
    before = files_of(audit)
    (cosignature,) = [path for path in before if path.startswith("cosignatures/")]
    code, _, stderr = site.verify("--resume", audit, *declared)
    assert code == 0, stderr
    after = files_of(audit)
    # What was made over the earlier manifest says nothing about the new one.
    made_over = ("declarations.json", "annexes/fre-702.html", "custody.later.jsonl", cosignature, "manifest.dsse.json")
    for path in made_over:
        assert after[f"superseded/1.{path.rpartition('/')[2]}"] == before[path]
    assert cosignature not in after
    assert after["declarations.json"] == before["declarations.json"]
    assert "signed by the examiner" in checked(audit)["custody after signing"]["detail"]
    assert "none is here" in checked(audit)["further signatures"]["detail"]


def test_what_was_made_over_a_finished_audit_stays(site, audit, tmp_path):
    witness, declared = paper(tmp_path)
    shutil.copytree(site.folder / "whole", audit)
    filed("cosign", audit, "--key", witness, "--role", "witness")
    before = files_of(audit)
    code, _, stderr = site.verify("--resume", audit, *declared)
    assert code == 0, stderr
    assert files_of(audit) == before


@pytest.mark.parametrize("step", ["7 results written", "8 annexes written", "9 later log begun"])
def test_what_the_examiner_brings_along_may_grow_before_the_audit_goes_on(site, audit, tmp_path, step):
    _, declared = paper(tmp_path)
    code, _, stderr = site.verify("--out", audit, *declared, step=step)
    assert code == -signal.SIGKILL, stderr
    (tmp_path / "d.toml").write_text(form_text().replace('number = ""', 'number = "5 O 2/26"', 1))
    code, _, stderr = site.verify("--resume", audit, *declared)
    assert code == 0, stderr
    assert b"5 O 2/26" in (audit / "report.html").read_bytes()
    done = CliRunner().invoke(app, ["check", str(audit), "--render", "--json"])
    assert done.exit_code == 0, done.output


def test_a_finished_audit_is_checked_and_left_as_it_is(site, audit):
    whole = site.folder / "whole"
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    code, stdout, stderr = site.verify("--resume", whole)
    assert code == 0, stderr
    assert "finished" in stderr
    assert stdout.startswith("supported")
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    assert not site.service.asked


def test_a_suspect_that_withdrew_is_asked_on_and_lost_batches_first(site, audit):
    site.service.fail_from = 3
    code, _, stderr = site.verify("--out", audit, "--timeout", "5")
    assert code == 4, stderr
    assert "--resume" in stderr
    cut_off = transcript_of(audit)
    assert cut_off.closed_reason == "failed"
    lost = cut_off.batches[-1]
    assert [(a.status, a.error) for a in lost.failed_attempts] == [(503, "HTTP 503")] * 4
    site.service.fail_from = None
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    found = results_of(audit)
    assert {**found, "resumed": []} == site.results
    assert "the suspect had stopped answering" in found["resumed"][0]
    assert Counter(site.service.asked) == site.planned
    after = transcript_of(audit)
    assert [len(batch.retried_at) for batch in after.batches[:7]] == [0, 0, 0, 1, 1, 1, 1]
    checked(audit)


@pytest.fixture(scope="module")
def stopped(site):
    """An audit that was killed with a question in flight; tests copy it."""
    site.service.forget()
    code, _, stderr = site.verify("--out", site.folder / "stopped", "--examiner", "me", step="5 request written")
    assert code == -signal.SIGKILL, stderr
    return site.folder / "stopped"


def untouched(folder, how):
    """Return what a call gives that must leave a folder as it is."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = how()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return done


def refusal(site, folder, *options, code=2):
    found, _, stderr = untouched(folder, lambda: site.verify("--resume", folder, *options))
    assert found == code, stderr
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("auditor: ")]
    assert not site.service.asked
    return line


@pytest.mark.parametrize(
    "option",
    [
        ("--alpha", "1e-7"),
        ("--max-queries", "125"),
        ("--judge-nonce", "ab" * 16),
        ("--examiner", "somebody else"),
        ("--batch-size", "4"),
        ("--out", "elsewhere"),
    ],
    ids=lambda option: option[0],
)
def test_other_terms_than_the_audit_was_begun_with_are_exit_2(site, stopped, audit, option):
    assert option[0] in refusal(site, stopped, *option)


def test_the_same_terms_may_be_stated_again(site, stopped, audit):
    shutil.copytree(stopped, audit)
    options = ("--alpha", "1e-6", "--examiner", "me", "--batch-size", "64", "--out", audit)
    code, _, stderr = site.verify("--resume", audit, *options)
    assert code == 0, stderr


def test_another_suspect_key_set_or_examiner_is_exit_2(site, stopped, audit, tmp_path):
    with running(Service().app) as other:
        assert "differs in: uri" in refusal(site, stopped, "--endpoint", other)
    seal_keys(tmp_path / "k.npz", small_protocol())
    assert "another key set" in refusal(site, stopped, "--keyset", tmp_path / "k.npz")
    SigningKey.generate().write_pem(tmp_path / "examiner.pem")
    shutil.copytree(site.folder / "whole", audit)
    (audit / "manifest.dsse.json").unlink()
    assert "another examiner's key" in refusal(site, audit, "--examiner-key", tmp_path / "examiner.pem")


def test_nothing_to_resume_is_exit_2_and_strangers_files_are_left_alone(site, audit):
    code, _, stderr = site.verify("--resume", audit)
    assert code == 2
    assert "no such folder" in stderr
    audit.mkdir()
    (audit / "mine.json.part").write_text("precious")
    assert "no place in it" in refusal(site, audit, code=5)


def test_a_broken_record_is_exit_5(site, stopped, audit):
    shutil.copytree(stopped, audit)
    data = (audit / "transcript.jsonl").read_bytes()
    (audit / "transcript.jsonl").write_bytes(data.replace(b'"label":0', b'"label":1', 1))
    assert "does not follow" in refusal(site, audit, code=5)


def test_two_processes_never_write_into_one_folder(site, stopped, audit):
    shutil.copytree(stopped, audit)
    holder = os.open(audit, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    assert "another process" in refusal(site, audit)
    os.close(holder)
    # Two commands at the same moment: the first one holds the folder while the suspect makes it wait.
    site.service.hold = threading.Event()
    second = Killer(site.folder / "home")
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(site.verify, "--resume", audit)
            wait_until(lambda: site.service.held)
            options = ("--keyset", site.folder / "k.npz", "--endpoint", site.url, "--reuse-keys")
            resumed = second.run("verify", *options, "--resume", audit)
            fresh = second.run("verify", *options, "--out", audit)
            site.service.hold.set()
            assert first.result()[0] == 0, first.result()
    finally:
        site.service.hold.set()
        second.close()
    assert (resumed[0], fresh[0]) == (2, 2)
    assert "another process" in resumed[2]
    assert "not empty" in fresh[2]
    checked(audit)


@pytest.mark.parametrize("limit", [5_000, pytest.param(9_000, marks=pytest.mark.slow), 20_000])
def test_a_disk_that_fills_up_is_exit_5_and_the_audit_goes_on_later(site, audit, limit):
    # No file can grow beyond the limit: a write stops in the middle of a line, as on a full disk.
    code, _, stderr = site.verify("--out", audit, file_limit=limit)
    assert code == 5, stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("auditor: ")]
    assert "the disk is full" in line
    assert f"--resume {audit} goes on" in line
    code, _, stderr = site.verify("--resume", audit)
    assert code == 0, stderr
    assert {**results_of(audit), "resumed": []} == site.results
    checked(audit)


def test_keys_that_a_killed_audit_showed_enter_the_ledger_when_it_goes_on(site, audit, tmp_path):
    own = ("--ledger", tmp_path / "own")
    code, _, stderr = site.verify("--out", audit, *own, step="5 stage 1 answered")
    assert code == -signal.SIGKILL, stderr
    assert not (tmp_path / "own").exists()
    code, _, stderr = site.verify("--resume", audit, *own)
    assert code == 0, stderr
    (line,) = [json.loads(text) for text in (tmp_path / "own").read_bytes().splitlines()]
    assert len(line["keys"]) == json.loads((audit / "results.json").read_bytes())["queries"]["keys"]
    assert line["transcript_head"] == transcript_of(audit).head
