"""Line-ups and rival claims with models that were really trained: through the commands, on digits."""

import hashlib
import json
from datetime import UTC, datetime

import authorities
import claimants
import pytest
from lineup_cases import without_reports, write_list
from typer.testing import CliRunner
from web import running

from auditor import findings
from auditor.cli.app import app
from auditor.errors import MissingPartError
from auditor.evidence import lineup as lists
from auditor.lineups import custody
from auditor.lineups.relay import Seat, create_relay
from auditor.models import load_model
from auditor.suspects import open_suspect


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Model folders: the owner's, an overwriter's, two independent ones; time stamps over two of them."""
    folder = tmp_path_factory.mktemp("claimants")
    dataset = claimants.digits()
    models = folder / "models"
    for name, seed in (("ours-2025", 501), ("public", 502)):
        claimants.innocent(models / name, dataset, seed=seed)
    twin = load_model(models / "public")
    claimants.owner_of(
        models / "owner", dataset, seed=b"\x31" * 32, nonce=b"\x32" * 32, training_seed=3, twin=twin
    )  # fmt: skip
    claimants.overwriter_of(
        models / "thief", dataset, victim=models / "owner", seed=b"\x41" * 32, nonce=b"\x42" * 32, twin=twin
    )
    authority = authorities.Authority(folder / "tsa", start=datetime(2025, 1, 1, tzinfo=UTC))
    for name in ("ours-2025", "owner"):
        weights = (models / name / "model.safetensors").read_bytes()
        (folder / f"{name}.tsr").write_bytes(authority.stamp(weights, datetime(2025, 6, 1, tzinfo=UTC)))
    return folder


def run(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def entry(folder, name, role, **more):
    return {"name": f"the model {name}", "role": role, "model": str(folder / "models" / name), **more}


def line_up(folder, out, entries, *, serve=None):
    """Plan, serve, run and open a line-up through the commands; ``serve`` replaces the honest relay."""
    keys = folder / "models" / "owner"
    listed = write_list(out / "candidates.toml", entries)
    run("blind", "plan", listed, "--seal", keys / "k.seal.json", "--out", out / "lineup")
    held = custody.read_custody(out / "lineup")
    commitment, audits = out / "lineup" / lists.COMMITMENT, out / "audits"
    with without_reports(), (serve or custody.relay)(held, interval_s=0.0) as relay, running(relay) as url:
        options = ["--keyset", keys / "k.npz", "--out", audits, "--ledger", out / "k.ledger.jsonl"]
        run("blind", "run", commitment, "--relay", url, *options)
        # Finished bundles are kept: running again asks nothing and shows the same.
        before = (audits / "A" / "manifest.json").read_bytes()
        run("blind", "run", commitment, "--relay", "http://127.0.0.1:9", *options)
        assert (audits / "A" / "manifest.json").read_bytes() == before
    run("blind", "open", out / "lineup")
    return out / "lineup", audits


def checked(lineup, audits, *options, code=0):
    return json.loads(run("blind", "check", lineup, "--audits", audits, "--json", *options, code=code).stdout)


def test_a_suspect_stands_out_among_dated_and_public_models(folder, tmp_path):
    entries = [
        entry(folder, "owner", "suspect"),
        entry(folder, "ours-2025", "earlier", time_stamps=[str(folder / "ours-2025.tsr")]),
        entry(folder, "public", "public"),
    ]
    lineup, audits = line_up(folder, tmp_path, entries)
    options = ["--models", folder / "models", "--tsa-root", folder / "tsa" / "root.pem"]
    found = checked(lineup, audits, *options, "--out", tmp_path / "finding")
    assert (found["outcome"], found["rank"], found["refuted_by"]) == ("the suspect alone stands out", "1/3", [])
    outcomes = {step["number"]: step["outcome"] for step in found["steps"]}
    # Fingerprints were not given, and the list itself was not stamped; all else is checked.
    assert {number for number, outcome in outcomes.items() if outcome != "PASS"} == {2, 11}
    numbers = json.loads(findings.verify_finding(tmp_path / "finding"))
    assert {each["name"]: each["status"] for each in numbers["candidates"]} == {
        "the model owner": "supported",
        "the model ours-2025": "not supported",
        "the model public": "not supported",
    }
    dated = next(each for each in numbers["candidates"] if each["role"] == "earlier")
    assert (dated["dated"]["at"], dated["precedes_seal"]) == ("2025-06-01T00:00:00.000Z", True)
    page = (tmp_path / "finding" / "report.html").read_text()
    assert "1/3 = 0.333" in page
    assert "never give less than 1/3" in page
    assert (tmp_path / "finding" / "report.pdf").read_bytes().startswith(b"%PDF")
    # No path of the custodian's machine is published.
    assert str(folder) not in page + (lineup / lists.OPENING).read_text() + json.dumps(numbers)
    assert checked(lineup, audits, "--strict", code=5)["accepted"] is False


def test_a_dated_model_that_carries_the_mark_speaks_against_the_claim(folder, tmp_path, monkeypatch):
    def absent(*_, **__):
        raise MissingPartError("left out by this test")

    monkeypatch.setattr("auditor.report.pdf.make_attached_pdf", absent)
    entries = [
        entry(folder, "thief", "suspect"),
        entry(folder, "owner", "earlier", time_stamps=[str(folder / "owner.tsr")]),
    ]
    lineup, audits = line_up(folder, tmp_path, entries)
    letter = next(c.label for c in custody.read_custody(lineup).candidates if c.tokens)
    undated = checked(lineup, audits)
    assert (undated["outcome"], undated["refuted_by"]) == ("other candidates carry the mark too", [])
    root = ["--tsa-root", folder / "tsa" / "root.pem", "--out", tmp_path / "finding"]
    assert checked(lineup, audits, *root)["refuted_by"] == [letter]
    assert "the claim on the suspect has no basis" in (tmp_path / "finding" / "report.html").read_text()


def test_a_custodian_who_hides_the_suspect_behind_another_model(folder, tmp_path):
    import contextlib

    from auditor import casefile
    from auditor.canonical import sha256_hex
    from auditor.evidence.relay_record import RecordWriter

    @contextlib.contextmanager
    def cheating(held, *, interval_s):
        # The honest relay refuses this; a custodian may run another program.
        digest = sha256_hex(held.commitment)
        writer = RecordWriter(held.folder / lists.RECORD, commitment_sha256=digest, clock=casefile.utc_now)
        with contextlib.ExitStack() as stack:
            stack.callback(writer.close)
            seats = [
                Seat(label=c.label, place=c.place, suspect=stack.enter_context(
                    open_suspect(model=folder / "models" / ("public" if c.role == "suspect" else "ours-2025"))))
                for c in held.candidates
            ]  # fmt: skip
            yield create_relay(seats, spec=held.seal.spec, n_outputs=held.lineup.n_outputs, scores=False,
                               record=writer.add, interval_s=interval_s)  # fmt: skip

    entries = [entry(folder, "owner", "suspect"), entry(folder, "ours-2025", "independent")]
    lineup, audits = line_up(folder, tmp_path, entries, serve=cheating)
    unseen = checked(lineup, audits)
    assert unseen["outcome"] == "the suspect does not stand out"
    assert next(step for step in unseen["steps"] if step["number"] == 10)["outcome"] == "NOT CHECKED"
    found = checked(lineup, audits, "--models", folder / "models", "--out", tmp_path / "finding", code=5)
    failed = [step for step in found["steps"] if step["outcome"] == "FAIL"]
    assert [step["number"] for step in failed] == [10]
    assert "another model stood at its place" in failed[0]["detail"]
    assert not (tmp_path / "finding").exists()


@pytest.mark.slow
def test_a_line_up_of_files_needs_no_relay(folder, tmp_path):
    entries = [entry(folder, "thief", "suspect"), entry(folder, "public", "public")]
    keys = folder / "models" / "owner"
    listed = write_list(tmp_path / "c.toml", entries)
    run("blind", "plan", listed, "--seal", keys / "k.seal.json", "--out", tmp_path / "lineup")
    held = custody.read_custody(tmp_path / "lineup")
    nonce = hashlib.sha256(held.commitment).hexdigest()
    for each in held.candidates:
        options = ["--judge-nonce", nonce, "--family", "2", "--reuse-keys", "--ledger", tmp_path / "k.ledger.jsonl"]
        arguments = ["verify", "--keyset", keys / "k.npz", "--model", held.sources[each.label].model, *options]
        with without_reports():
            CliRunner().invoke(app, [str(a) for a in (*arguments, "--out", tmp_path / "audits" / each.label)])
    run("blind", "open", tmp_path / "lineup")
    found = checked(tmp_path / "lineup", tmp_path / "audits")
    assert (found["outcome"], found["rank"]) == ("the suspect alone stands out", "1/2")
    assert {step["outcome"] for step in found["steps"] if step["number"] in (8, 9)} == {"PASS", "NOT CHECKED"}


def test_the_relay_refuses_a_model_that_was_exchanged_after_the_commitment(folder, tmp_path):
    import shutil

    models = tmp_path / "models"
    for name in ("owner", "public"):
        shutil.copytree(folder / "models" / name, models / name)
    entries = [entry(tmp_path, "owner", "suspect"), entry(tmp_path, "public", "public")]
    keys = folder / "models" / "owner" / "k.seal.json"
    run("blind", "plan", write_list(tmp_path / "c.toml", entries), "--seal", keys, "--out", tmp_path / "lineup")
    shutil.rmtree(models / "owner")
    shutil.copytree(folder / "models" / "ours-2025", models / "owner")
    done = run("blind", "serve", tmp_path / "lineup", "--port", "0", code=5)
    assert "is not the committed one" in done.stderr


def test_a_mark_put_over_another_lies_on_top(folder, tmp_path):
    models = folder / "models"

    def verify(out, *, keys, model):
        ledger = ["--ledger", tmp_path / f"{out}.jsonl"]
        with without_reports():
            CliRunner().invoke(app, ["verify", "--keyset", str(models / keys / "k.npz"), "--model", str(models / model),
                                     "--out", str(tmp_path / out), *map(str, ledger)])  # fmt: skip
        return tmp_path / out

    owner_claims = verify("a", keys="owner", model="thief")
    thief_claims = verify("b", keys="thief", model="thief")
    thief_on_owner = verify("b-on-a", keys="thief", model="owner")
    # The suspect is the very model that the thief sealed: the owner's audit of it is the cross-test as well.
    crosses = ["--a-on-b", owner_claims, "--b-on-a", thief_on_owner]
    found = json.loads(run("rivals", owner_claims, thief_claims, *crosses, "--json").stdout)
    assert (found["ruling"], found["favoured"]) == ("one mark lies underneath the other", "a")
    undecided = json.loads(run("rivals", owner_claims, thief_claims, "--json", code=4).stdout)
    assert undecided["ruling"] == "both claims are supported, and nothing orders them"
