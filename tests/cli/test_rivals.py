"""`auditor rivals` on audits of table suspects: rulings, symmetry, bad inputs, the signed comparison."""

import dataclasses
import json
import re
import shutil
from datetime import UTC, datetime

import authorities
import pytest
from cases import TableSuspect, innocent, marked, seal_keys, small_protocol
from lineup_cases import EXAMINER, of_another_task, without_reports
from protocols import SUSPECT
from typer.testing import CliRunner

from auditor import casefile, findings
from auditor.cli.app import app
from auditor.errors import EvidenceError
from auditor.evidence.rivals import Ruling, Side, read_rivals, rivals_object
from auditor.report.rivals import SENTENCES, render_rivals, told
from auditor.suspects.base import Description

SEALED_MODEL = "00" * 32
"""What both key sets of :mod:`cases` name as the owner's model."""


class FileTable(TableSuspect):
    """A table that says it is a model file."""

    def __init__(self, table, *, sha256):
        super().__init__(table)
        self._sha256 = sha256

    def describe(self):
        found = dataclasses.replace(SUSPECT, uri="model.safetensors", kind="file", artefact_sha256=self._sha256)
        return Description(suspect=found, n_labels=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Bundles by name: two claims on one service, and what the tests need beside them."""
    folder = tmp_path_factory.mktemp("rivals")
    authority = authorities.Authority(folder / "tsa", start=datetime(2026, 1, 1, tzinfo=UTC))
    keys = {name: seal_keys(folder / f"{name}.npz", small_protocol(), seed=seed) for name, seed in
            (("a", b"\x06" * 32), ("b", b"\x07" * 32))}  # fmt: skip
    stamped = {
        "a": authority.stamp(keys["a"].envelope, datetime(2026, 3, 1, tzinfo=UTC)),
        "b": authority.stamp(keys["b"].envelope, datetime(2026, 4, 1, tzinfo=UTC)),
    }
    other = {"sha256": "77" * 32}
    own = {"sha256": SEALED_MODEL}
    bundles = {
        "a": ("a", TableSuspect(marked), True),
        "b": ("b", TableSuspect(marked), True),
        "a-unstamped": ("a", TableSuspect(marked), False),
        "b-not-supported": ("b", TableSuspect(innocent), True),
        "a-not-supported": ("a", TableSuspect(innocent), True),
        "b-inconclusive": ("b", TableSuspect(of_another_task), True),
        "a-in-other": ("a", FileTable(marked, **own), True),
        "b-in-other": ("b", FileTable(marked, **own), True),
        "a-not-in-other": ("a", FileTable(innocent, **own), True),
        "b-not-in-other": ("b", FileTable(innocent, **own), True),
        "elsewhere": ("b", FileTable(marked, **other), True),
    }
    with without_reports():
        for name, (side, suspect, stamp) in bundles.items():
            casefile.verify(
                opened=keys[side], suspect=suspect, folder=folder / name, request=casefile.Request(),
                examiner=EXAMINER, seal_tokens=(stamped[side],) if stamp else (),
            )  # fmt: skip
    return folder


def run(folder, a, b, *options, cross_a=None, cross_b=None, timed=True):
    arguments = ["rivals", str(folder / a), str(folder / b)]
    for option, name in (("--a-on-b", cross_a), ("--b-on-a", cross_b)):
        arguments += [option, str(folder / name)] if name else []
    if timed:
        arguments += ["--tsa-root", str(folder / "tsa" / "root.pem")]
    return CliRunner().invoke(app, [*arguments, *map(str, options)])


@pytest.mark.parametrize(
    ("names", "crosses", "timed", "ruling", "favoured", "code"),
    [
        (("a", "b-not-supported"), (None, None), True, Ruling.ONE, "a", 0),
        (("a", "b-inconclusive"), (None, None), True, Ruling.ONE, "a", 0),
        (("a-not-supported", "b-inconclusive"), (None, None), True, Ruling.NEITHER, None, 3),
        (("a", "b"), (None, None), True, Ruling.EARLIER, "a", 0),
        (("a", "b"), ("a-not-in-other", "b-not-in-other"), True, Ruling.EARLIER, "a", 0),
        # The owners' own dates differ by nothing, and would decide nothing if they did.
        (("a", "b"), (None, None), False, Ruling.UNORDERED, None, 4),
        (("a-unstamped", "b"), (None, None), True, Ruling.UNORDERED, None, 4),
        (("a", "b"), ("a-in-other", "b-not-in-other"), True, Ruling.UNDERNEATH, "a", 0),
        (("a", "b"), ("a-not-in-other", "b-in-other"), False, Ruling.UNDERNEATH, "b", 0),
        (("a", "b"), ("a-not-in-other", "b-in-other"), True, Ruling.CONTRADICTION, None, 4),
        (("a", "b"), ("a-in-other", "b-in-other"), False, Ruling.CROSSED, None, 4),
    ],
)
def test_rulings_with_their_exit_codes(made, names, crosses, timed, ruling, favoured, code):
    done = run(made, *names, "--json", cross_a=crosses[0], cross_b=crosses[1], timed=timed)
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert (found["ruling"], found["favoured"]) == (ruling.value, favoured)


def mirrored(numbers):
    claims = numbers["claims"]
    favoured = {"a": "b", "b": "a", None: None}[numbers["favoured"]]
    return {**numbers, "claims": {"a": claims["b"], "b": claims["a"]}, "favoured": favoured}


@pytest.mark.parametrize("crosses", [{}, {"a": "a-in-other"}, {"a": "a-in-other", "b": "b-not-in-other"}])
def test_exchanging_the_inputs_exchanges_the_columns_and_changes_nothing_else(made, crosses):
    given = {Side(side): made / name for side, name in crosses.items()}
    one = rivals_object(read_rivals({Side.A: made / "a", Side.B: made / "b"}, crosses=given))
    other = rivals_object(
        read_rivals(
            {Side.A: made / "b", Side.B: made / "a"}, crosses={side.other: path for side, path in given.items()}
        )
    )
    assert other == mirrored(one)


ROW = re.compile(r'<tr><th scope="row">(.*?)</th><td(.*?)>(.*?)</td><td(.*?)>(.*?)</td></tr>')


def page(numbers):
    """Return the page's rows, its sentences, and everything else."""
    text = render_rivals(numbers, issued_at="2026-11-22T00:00:00.000Z").decode()
    headline, explanation = (
        sentence.replace("'", "&#39;") for sentence in told(numbers["ruling"], numbers["favoured"])
    )
    assert headline in text
    assert explanation in text
    return ROW.findall(text), ROW.sub("", text).replace(headline, "").replace(explanation, "")


@pytest.mark.parametrize(("ruling", "favoured"), [(ruling, side) for ruling in Ruling for side in ("a", "b")])
def test_the_page_treats_both_alike(made, ruling, favoured):
    numbers = rivals_object(read_rivals({Side.A: made / "a", Side.B: made / "b-not-supported"}, crosses={}))
    wanted = favoured if "{x}" in "".join(SENTENCES[ruling]) else None
    numbers = {**numbers, "ruling": ruling.value, "favoured": wanted}
    rows, rest = page(numbers)
    rows_mirrored, rest_mirrored = page(mirrored(numbers))
    assert len(rows) == 15
    assert [(label, sb, b, sa, a) for label, sa, a, sb, b in rows] == rows_mirrored
    assert rest == rest_mirrored


def test_every_ruling_speaks_of_both_in_the_same_words():
    for ruling in Ruling:
        assert set(re.findall(r"\{(.)\}", "".join(SENTENCES[ruling]))) in ({"x", "y"}, set())


def only_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("auditor: ")]
    assert len(lines) == 1, done.output
    return lines[0]


@pytest.mark.parametrize(
    ("names", "crosses", "code", "line"),
    [
        (("a", "a"), (None, None), 2, "of one key set"),
        (("a", "a-unstamped"), (None, None), 2, "of one key set"),
        (("a", "elsewhere"), (None, None), 2, "different suspects"),
        (("a", "nothing"), (None, None), 2, "no such folder"),
        (("a", "b"), ("b-in-other", None), 2, "another key set than the claim's"),
        (("a", "b"), ("a", None), 2, "not of the model file"),
        (("a", "b"), (None, "elsewhere"), 2, "not of the model file"),
    ],
)
def test_bad_inputs_are_one_clear_line(made, names, crosses, code, line):
    done = run(made, *names, cross_a=crosses[0], cross_b=crosses[1])
    assert done.exit_code == code, done.output
    assert line in only_line(done)


def test_one_owner_is_no_rival(tmp_path):
    from auditor.evidence.signing import SigningKey

    owner = SigningKey.generate()
    with without_reports():
        for name, seed in (("a", b"\x06" * 32), ("b", b"\x07" * 32)):
            opened = seal_keys(tmp_path / f"{name}.npz", small_protocol(), seed=seed, owner=owner)
            casefile.verify(
                opened=opened, suspect=TableSuspect(marked), folder=tmp_path / name, request=casefile.Request()
            )
    done = run(tmp_path, "a", "b", timed=False)
    assert done.exit_code == 2
    assert "not rival claims" in only_line(done)


def test_a_bundle_that_does_not_check_out_is_exit_5(made, tmp_path):
    shutil.copytree(made / "b", tmp_path / "b")
    path = tmp_path / "b" / "results.json"
    path.write_bytes(path.read_bytes().replace(b"supported", b"not supported"))
    done = run(made, "a", tmp_path / "b")
    assert done.exit_code == 5
    assert "the bundle of claim B does not check out" in only_line(done)
    done = run(made, "a", "b", "--examiner-key", "11" * 32)
    assert done.exit_code == 5
    assert "not an expected one" in only_line(done)


def test_the_comparison_is_signed_with_its_report(made, tmp_path):
    out = tmp_path / "out"
    done = run(made, "a", "b", "--out", out, cross_a="a-in-other", cross_b="b-not-in-other")
    assert done.exit_code == 0, done.output
    numbers = findings.verify_finding(out)
    assert json.loads(numbers)["ruling"] == Ruling.UNDERNEATH.value
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")
    for name in ("finding.json", "report.html", "report.pdf"):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole + b" ")
        with pytest.raises(EvidenceError, match=name):
            findings.verify_finding(out)
        (out / name).write_bytes(whole)
    with pytest.raises(EvidenceError, match="expected key"):
        findings.verify_finding(out, fingerprint="00" * 32)
    (out / "report.pdf").unlink()
    with pytest.raises(EvidenceError, match=r"report\.pdf"):
        findings.verify_finding(out)
    assert run(made, "a", "b", "--out", out).exit_code == 2
