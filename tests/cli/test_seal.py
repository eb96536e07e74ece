"""`auditor seal`: foreign trigger sets are sealed, marked, and end contestable at most."""

import json

import numpy as np
import pyrage
import pytest
from cases import KINDS, TableSuspect, marked
from typer.testing import CliRunner

from auditor import casefile
from auditor.cli.app import app
from auditor.evidence.check import check_bundle
from auditor.evidence.keyset import open_sealed
from auditor.evidence.signing import SigningKey
from auditor.records import SampleKind
from auditor.report.html import render_again


def foreign_file(path, kind, n, *, expected=None, dtype="<i8"):
    x = np.zeros((n, 1, 2, 2), dtype=np.uint8)
    natural = np.arange(n) % 4
    x[:, 0, 0, 0], x[:, 0, 0, 1], x[:, 0, 1, 0] = KINDS.index(kind), natural, np.arange(n)
    wanted = natural if expected is None else np.full(n, expected)
    np.savez(path, x=x, natural=natural.astype(dtype), expected=wanted.astype(dtype))
    return path


@pytest.fixture
def files(tmp_path):
    key = SigningKey.generate()
    key.write_pem(tmp_path / "owner.pem")
    (tmp_path / "model.bin").write_bytes(b"weights")
    return {
        "keys": foreign_file(tmp_path / "keys.npz", SampleKind.KEY, 40, expected=4),
        "shams": foreign_file(tmp_path / "shams.npz", SampleKind.SHAM, 100, expected=4, dtype="<i4"),
        "controls": foreign_file(tmp_path / "controls.npz", SampleKind.CONTROL, 30),
    }


def run(tmp_path, files, *more):
    arguments = [files["keys"], "--owner-key", tmp_path / "owner.pem", "--model", tmp_path / "model.bin"]
    return CliRunner().invoke(app, ["seal", *map(str, [*arguments, "--out", tmp_path / "sealed", *more])])


def test_an_imported_set_is_sealed_marked_and_at_most_contestable(tmp_path, files):
    done = run(tmp_path, files, "--shams", files["shams"], "--controls", files["controls"])
    assert done.exit_code == 0, done.output
    assert "not verifiable" in done.stdout
    opened = casefile.open_keyset(tmp_path / "sealed" / "k.npz", seal=None, owner_fingerprint=None)
    assert opened.seal.generator.name == "imported"
    assert opened.seal.generator.settings == {"generation": "not verifiable"}
    case = casefile.verify(
        opened=opened,
        suspect=TableSuspect(marked),
        folder=tmp_path / "audit",
        request=casefile.request(opened, alpha=None, max_queries=None, operator=""),
    )
    assert case.exit_code == 4
    assert case.results["verdict"]["reason"] == "contestable"
    assert case.results["opinion"]["lr"] is None
    assert "not verifiable" in case.results["keyset"]["generation"]
    assert "generation not verifiable" in (tmp_path / "audit" / "report.html").read_text()
    report = check_bundle(
        tmp_path / "audit", owner_fingerprint=None, examiner_fingerprint=None, check_pdf=None,
        render_html=lambda bundle: render_again(bundle.contents),
        open_keyset=lambda envelope: open_sealed(tmp_path / "sealed" / "k.npz", seal_envelope=envelope),
    )  # fmt: skip
    assert report.intact
    (step,) = (step for step in report.steps if "generation" in step.title)
    assert "not verifiable" in step.detail


def test_without_shams_and_controls_the_owner_is_told(tmp_path, files):
    done = run(tmp_path, files)
    assert done.exit_code == 0, done.output
    assert "ends inconclusive" in done.stderr


def test_a_recipient_encrypts(tmp_path, files):
    done = run(tmp_path, files, "--recipient", pyrage.x25519.Identity.generate().to_public())
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        app, ["verify", "--keyset", str(tmp_path / "sealed" / "k.npz"), "--endpoint", "http://127.0.0.1:9"]
    )
    assert done.exit_code == 2
    assert "identity is needed" in done.stderr


def test_bad_foreign_files_are_refused_in_one_line(tmp_path, files):
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "more.npz", x=np.zeros((1, 1, 2, 2), np.uint8), y=np.zeros(1))
    np.savez(
        tmp_path / "long.npz",
        x=np.zeros((1, 1, 2, 2), np.uint8),
        natural=np.zeros(2, np.int64),
        expected=np.zeros(1, np.int64),
    )
    np.savez(
        tmp_path / "objects.npz", x=np.array([[[[None]]]], object), natural=np.zeros(1, int), expected=np.zeros(1, int)
    )
    for name, code in (("text", 5), ("more", 5), ("long", 5), ("objects", 5), ("missing", 2)):
        done = run(tmp_path, files | {"keys": tmp_path / f"{name}.npz"})
        assert done.exit_code == code, (name, done.output)
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "sealed").exists()
    assert json.dumps(done.stderr)


def test_labels_outside_the_classes_are_refused(tmp_path, files):
    done = run(tmp_path, files, "--classes", "2")
    assert done.exit_code == 2
    assert "outside the classes" in done.stderr
