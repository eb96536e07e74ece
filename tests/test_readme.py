"""What the README shows of the program is what the program prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from auditor import errors

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\n(.*?)```\n<!-- /{re.escape(name)} -->", README, re.DOTALL)
    assert found, f"README has no block {name!r}"
    return found.group(1)


def test_help_block():
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", "auditor", "--help"], capture_output=True, text=True, check=True, env=environment
    )
    printed = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    # The program's own name depends on how it was started.
    assert block("auditor --help").strip() == printed.replace("python -m auditor", "auditor")


def test_exit_codes_are_those_of_the_error_tree():
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    raised = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.AuditorError)
    }
    assert table == raised | {0, 3, 4}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_demo_block_shows_every_outcome():
    shown = block("demo output")
    for line in ("stolen copy", "fine-tuned copy", "pruned copy", "independent model", "supported", "not supported"):
        assert line in shown
