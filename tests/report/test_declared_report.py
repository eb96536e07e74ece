"""Draft and final: what declarations change in the report, the annexes as files, and issued revisions of a bundle."""

import base64
import dataclasses
import html
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cases import TableSuspect, marked, seal_keys, small_protocol
from report import samples
from report.declared import declarations
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent / "evidence"))

import bundles
import tampering

from auditor import casefile
from auditor.audit import Request
from auditor.cli.app import app
from auditor.evidence.declarations import declarations_bytes, form_text
from auditor.evidence.signing import SigningKey
from auditor.evidence.times import utc_text
from auditor.report import wording
from auditor.report.annexes import render_annexes
from auditor.report.declared import COMMENTED, is_final
from auditor.report.html import render_html
from auditor.report.inputs import read_folder


@pytest.fixture(autouse=True)
def _no_handler_of_an_earlier_command():
    logging.getLogger("auditor").handlers.clear()


def text_of(page):
    plain = re.sub(r"<style>.*?</style>", " ", page.decode("utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", plain)).split())


def given(name="supported", **changes):
    return dataclasses.replace(samples.report_input(name), **changes)


def test_a_report_is_final_only_with_every_declaration_about_itself():
    own = given().report_id
    assert is_final(given(declarations=declarations(own)))
    assert not is_final(given())
    assert not is_final(given(declarations=declarations("")))
    assert not is_final(given(declarations=declarations("OA-0000-0000-0000-0000")))
    for path in declarations().values:
        said = dataclasses.replace(declarations(own), values=declarations().values | {path: ""})
        page = render_html(given(declarations=said)).decode() if path.endswith("truth") else ">DRAFT<"
        assert not is_final(given(declarations=said))
        assert ">DRAFT<" in page


def test_a_final_report_prints_every_declaration_and_leaves_only_the_signature_open():
    page = render_html(given(declarations=declarations(given().report_id)))
    text = text_of(page)
    assert ">FINAL<" in page.decode()
    assert "DRAFT" not in text
    for path, said in declarations().values.items():
        assert said in text, path
    # The certificate of annex B is a draft of its own and still to be signed.
    assert text.count(wording.BLANK) == 1


def test_declared_text_is_printed_and_never_obeyed():
    hostile = "<script>alert(1)</script> \u202e {{ 7*7 }} \x00"
    page = render_html(given(declarations=declarations(given().report_id, case__number=hostile)))
    assert b"<script" not in page
    assert "[U+202E]" in page.decode()
    assert "{{ 7*7 }}" in text_of(page)


def test_every_alternative_has_a_field_of_the_form():
    assert {alternative.title for alternative in wording.ALTERNATIVES} == set(COMMENTED)
    assert set(COMMENTED.values()) <= set(declarations().values)


@pytest.mark.parametrize("name", samples.SUSPECTS)
@pytest.mark.parametrize("complete", [False, True])
def test_no_banned_phrase_in_report_or_annexes(name, complete):
    said = declarations(given(name).report_id) if complete else None
    pages = render_annexes(given(name, declarations=said))
    pages["report.html"] = render_html(given(name, declarations=said))
    for path, page in pages.items():
        text = text_of(page).lower()
        assert not [phrase for phrase in wording.BANNED if phrase in text], path
        assert not re.search(r"innocen|guilt|thief|stole", text)
        assert "<script" not in page.decode()


def test_the_certificate_lists_the_records_and_stays_a_draft():
    files = samples.bundle_files("supported")
    from hashlib import sha256

    for said in (None, declarations(given().report_id)):
        page = render_annexes(given(declarations=said))["annexes/certificate-902.draft.html"]
        text = text_of(page)
        assert "DRAFT" in text
        assert "28 U.S.C. § 1746" in text
        assert "under penalty of perjury" in text
        assert text.count(wording.BLANK) >= 4
        squeezed = text.replace(" ", "")
        for name in ("results.json", "transcript.jsonl", "seal/k.seal.json", "openings.json", "custody.jsonl"):
            assert sha256(files[name]).hexdigest() in squeezed
    assert "said about examiner.qualifications" in text


def test_the_map_has_its_four_rows_with_figures():
    text = text_of(render_annexes(given())["annexes/fre-702.html"])
    results = samples.results_of("supported")
    for element in ("(a) helps", "(b) sufficient", "(c) reliable", "(d) opinion"):
        assert element in text
    assert f"{results['detection']['hits']} of {results['detection']['trials']} key samples" in text


# --- issued revisions ---


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def form(report, **changes):
    text = form_text().replace('report = ""', f'report = "{report}"', 1)
    text = re.sub(
        r'^(?!report)(\w+) = ""$', lambda m: f'{m[1]} = "{changes.get(m[1], "said about " + m[1])}"', text, flags=re.M
    )
    return text.replace('date = "said about date"', f'date = "{casefile.utc_now():%Y-%m-%d}"')


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with declarations made beforehand, its examiner's key beside it, and one issued revision."""
    folder = tmp_path_factory.mktemp("issued")
    key = SigningKey.generate()
    key.write_pem(folder / "e.pem")
    opened = seal_keys(folder / "k.npz", small_protocol())
    before = declarations("", declarations__truth="", declarations__date="")
    made = casefile.verify(
        opened=opened, suspect=TableSuspect(marked), folder=folder / "a", request=Request(), examiner=key,
        additions={"declarations.json": declarations_bytes(before)},
    )  # fmt: skip
    name = read_folder(made.folder).report_id
    (folder / "d.toml").write_text(form(name))
    done = run("report", made.folder, "--declarations", folder / "d.toml", "--examiner-key", folder / "e.pem")
    assert done.exit_code == 0, done.output
    return made.folder


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "b")


def failed(folder, *more):
    done = run("check", folder, "--json", *more)
    return {s["number"]: s["detail"] for s in json.loads(done.stdout)["steps"] if s["outcome"] == "FAIL"}


def step_20(folder):
    return json.loads(run("check", folder, "--json", "--render").stdout)["steps"][19]


def test_declarations_made_beforehand_leave_a_draft_that_the_manifest_covers(bundle):
    page = (bundle / "report.html").read_text()
    assert ">DRAFT<" in page
    assert "said about case.number" in page
    listed = {entry["path"]: entry["role"] for entry in json.loads((bundle / "manifest.json").read_bytes())["files"]}
    assert listed["declarations.json"] == "declarations"
    assert listed["annexes/certificate-902.draft.html"] == listed["annexes/fre-702.html"] == "annex"


def test_an_issued_revision_checks_out_and_the_first_stays_as_it_was(bundle):
    assert failed(bundle, "--render") == {}
    step = step_20(bundle)
    assert step["outcome"] == "PASS"
    assert "revision 2 equal byte for byte" in step["detail"]
    page = (bundle / "issued/2.report.html").read_text()
    assert ">FINAL<" in page
    assert "supersedes rev. 1" in page
    for path in ("annexes/certificate-902.draft.html", "annexes/fre-702.html"):
        assert path in page


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")
def test_every_page_is_marked_draft_or_final_with_report_and_revision(bundle):
    for path, state, revision in (("report.pdf", "DRAFT", 1), ("issued/2.report.pdf", "FINAL", 2)):
        said = subprocess.run(["pdftotext", "-layout", bundle / path, "-"], capture_output=True, text=True, check=True)
        pages = said.stdout.removesuffix("\f").split("\f")
        for number, page in enumerate(pages, start=1):
            foot = page.strip().splitlines()[-1]
            assert re.search(
                rf"OA(-[0-9A-F]{{4}}){{4}} · revision {revision}\s+{state}\s+Page {number} of {len(pages)}", foot
            )


def test_openssl_verifies_the_declarations_by_hand(bundle):
    text = (bundle / "CHECK.txt").read_text()
    (command,) = [line.strip() for line in text.splitlines() if line.startswith("    for c in issued/")]
    script = f"set -eo pipefail\nwork=$(mktemp -d)\n{command}"
    done = subprocess.run(["bash", "-c", script], cwd=bundle, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("revision 2 ")
    assert "Signature Verified Successfully" in done.stdout


def rewrite(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def append(path):
    path.write_bytes(path.read_bytes() + b"\n")


TAMPERINGS = {
    "html edited": (lambda b: rewrite(b / "issued/2.report.html", b"FINAL", b"VALID"), {19, 20}),
    "certificate edited": (lambda b: rewrite(b / "issued/2.certificate-902.draft.html", b"DRAFT", b"SIGNED"), {19, 20}),
    "pdf appended": (lambda b: append(b / "issued/2.report.pdf"), {19, 20}),
    "pdf certificate swapped": (lambda b: rewrite(b / "issued/2.report.crt.pem", b"MII", b"MIJ"), {19, 20}),
    "pdf removed": (lambda b: (b / "issued/2.report.pdf").unlink(), {19}),
    "declarations edited": (lambda b: rewrite(b / "issued/2.declarations.dsse.json", b"a", b"b"), {19, 20}),
    "declarations removed": (lambda b: (b / "issued/2.declarations.dsse.json").unlink(), {19, 20}),
    "annex edited": (lambda b: rewrite(b / "annexes/fre-702.html", b"DRAFT", b"FINAL"), {2}),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_with_an_issued_report_fails(copy, name):
    tamper, steps = TAMPERINGS[name]
    tamper(copy)
    assert set(failed(copy, "--render")) == steps


@pytest.mark.parametrize("path", ["annexes/certificate-902.draft.html", "annexes/fre-702.html", "declarations.json"])
def test_an_examiner_who_signs_other_sheets_again_is_caught_by_rendering(copy, bundle, path):
    seal = json.loads((copy / "manifest.dsse.json").read_bytes())["payload"]
    owner = json.loads(base64.b64decode(seal))["predicate"]["owner_fingerprint"]
    if path == "declarations.json":
        (copy / path).write_bytes(declarations_bytes(declarations("", declarations__truth="")))
    else:
        rewrite(copy / path, b"DRAFT" if "902" in path else b"702", b"FINAL")
    made = bundles.Made(
        folder=copy,
        opened=None,
        owner=SimpleNamespace(fingerprint=owner),
        examiner=SigningKey.from_pem((bundle.parent / "e.pem").read_bytes()),
    )
    tampering.sign_again(made, signed_at=utc_text(casefile.utc_now()))
    assert failed(copy) == {}
    assert set(failed(copy, "--render")) == {15}


def test_a_second_revision_follows_the_first(copy, bundle, tmp_path):
    name = read_folder(copy).report_id
    (tmp_path / "d.toml").write_text(form(name, number="4 O 1/26"))
    key = bundle.parent / "e.pem"
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    done = run("report", copy, "--declarations", tmp_path / "d.toml", "--examiner-key", key)
    assert done.exit_code == 0, done.output
    for path, data in before.items():
        assert path.read_bytes() == data or path.name == "custody.later.jsonl"
    assert "supersedes rev. 2" in (copy / "issued/3.report.html").read_text()
    assert failed(copy) == {}
    for path in copy.glob("issued/2.*"):
        path.unlink()
    assert 20 in failed(copy)
    done = run("report", bundle, "--out", tmp_path / "c", "--no-pdf")
    assert done.exit_code == 0
    assert (tmp_path / "c/report.html").read_bytes() == (bundle / "issued/2.report.html").read_bytes()


def test_incomplete_declarations_make_a_draft_outside_the_bundle(copy, tmp_path):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    (tmp_path / "d.toml").write_text(form("", number="4 O 1/26"))
    done = run("report", copy, "--declarations", tmp_path / "d.toml", "--out", tmp_path / "c", "--no-pdf")
    assert done.exit_code == 0, done.output
    assert "still to be given: report" in done.stdout
    page = (tmp_path / "c/report.html").read_text()
    assert ">DRAFT<" in page
    assert "4 O 1/26" in page
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_bad_declarations_are_one_line_and_exit_2(copy, bundle, tmp_path):
    key, name = bundle.parent / "e.pem", read_folder(copy).report_id
    good = form(name)
    SigningKey.generate().write_pem(tmp_path / "x.pem")
    for text, extra, word in (
        ("[", ("--examiner-key", key), "not TOML"),
        (good.replace("number", "nummer"), ("--examiner-key", key), "case."),
        (good.replace(name, "OA-0000-0000-0000-0000"), ("--examiner-key", key), "this is OA-"),
        (re.sub(r'date = ".*"', 'date = "2020-01-01"', good), ("--examiner-key", key), "declarations.date"),
        (good, ("--examiner-key", tmp_path / "x.pem"), "--examiner-key"),
        (good, ("--examiner-key", key, "--out", tmp_path / "c"), "--out"),
    ):
        (tmp_path / "d.toml").write_text(text)
        done = run("report", copy, "--declarations", tmp_path / "d.toml", *extra)
        assert done.exit_code == 2, done.output
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("auditor: ")]
        assert word in line
    assert run("report", copy, "--declarations", tmp_path / "none.toml").exit_code == 2
    assert not (copy / "issued/3.report.html").exists()


def test_nothing_is_issued_on_a_bundle_that_does_not_check_out(copy, bundle, tmp_path):
    (tmp_path / "d.toml").write_text(form(read_folder(copy).report_id))
    (copy / "CHECK.txt").write_bytes(b"")
    done = run("report", copy, "--declarations", tmp_path / "d.toml", "--examiner-key", bundle.parent / "e.pem")
    assert done.exit_code == 5
    assert "not issued" in done.stderr


def test_the_form_is_printed_without_a_bundle_and_wording_is_warned_of(copy, tmp_path):
    done = run("report", "--declarations-template")
    assert done.exit_code == 0
    assert done.stdout == form_text()
    (tmp_path / "d.toml").write_text(form("", fitness="This is consistent with derivation."))
    done = run("report", copy, "--declarations", tmp_path / "d.toml", "--out", tmp_path / "c", "--no-pdf")
    assert "opinion.fitness: 'consistent with'" in done.stderr


def test_verify_refuses_declarations_about_a_report_that_does_not_exist(bundle, tmp_path):
    (tmp_path / "d.toml").write_text(form("OA-0000-0000-0000-0000"))
    done = run(
        "verify", "--keyset", bundle.parent / "k.npz", "--endpoint", "http://127.0.0.1:9/", "--declarations",
        tmp_path / "d.toml", "--out", tmp_path / "a",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "'report' must be empty" in done.stderr
    assert not (tmp_path / "a").exists()
