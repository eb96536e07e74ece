import pytest
import typer
from report import samples
from typer.testing import CliRunner

from auditor.cli.report import report
from auditor.errors import EvidenceError, UsageError
from auditor.report.html import render_html
from auditor.report.inputs import read_folder


def _run(*arguments):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    samples.write_bundle("supported", folder)
    (folder / "report.html").write_bytes(render_html(read_folder(folder)))
    return folder


def test_it_renders_beside_the_bundle_and_changes_nothing_in_it(bundle):
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    done = _run(bundle, "--no-pdf")
    assert done.exit_code == 0
    made = bundle.with_name("bundle-report") / "report.html"
    assert str(made) in done.stdout
    assert made.read_bytes() == (bundle / "report.html").read_bytes()
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def test_it_makes_a_pdf(bundle, tmp_path):
    assert _run(bundle, "--out", tmp_path / "copy").exit_code == 0
    assert (tmp_path / "copy" / "report.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_is_written_over(bundle, tmp_path):
    (tmp_path / "copy").mkdir()
    done = _run(bundle, "--out", tmp_path / "copy", "--no-pdf")
    assert isinstance(done.exception, UsageError)
    assert not list((tmp_path / "copy").iterdir())


@pytest.mark.parametrize("inside", ["again", "raw/again", "."])
def test_nothing_is_added_to_the_bundle(bundle, inside):
    done = _run(bundle, "--out", bundle / inside, "--no-pdf")
    assert isinstance(done.exception, UsageError)
    assert not (bundle / "again").exists()


def test_a_bundle_that_does_not_exist_or_is_broken(bundle, tmp_path):
    assert isinstance(_run(tmp_path / "absent").exception, UsageError)
    (bundle / "results.json").write_bytes(b"{")
    done = _run(bundle, "--out", tmp_path / "copy")
    assert isinstance(done.exception, EvidenceError)
    assert not (tmp_path / "copy").exists()
