"""The page on suspects says what the program reads and accepts."""

import re
from pathlib import Path

import pytest

from auditor.suspects.http import profile, profile_file
from auditor.suspects.http.templates import FILTERS, VARIABLES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "suspects.md").read_text()
TABLES = {"describe", "request", "input", "answer", "labels", "limits"}


def test_every_field_of_a_profile_is_on_the_page_and_no_other(monkeypatch):
    asked_for = set()
    take = profile_file._Table._take

    def noting(table, name, default):
        asked_for.add(".".join((*table._path, name)))
        return take(table, name, default)

    monkeypatch.setattr(profile_file._Table, "_take", noting)
    for name in profile.names():
        profile.load(name)
    read = {field for field in asked_for - TABLES if not field.startswith("describe.values.")}
    rows = re.findall(r"^\| (`[^|]+`) \| ", PAGE.split("| field | meaning |")[1].split("\n\n")[0], re.MULTILINE)
    told = {field for row in rows for field in re.findall(r"`([a-z_.]+)`", row)}
    assert told == read


def test_the_example_is_a_profile(monkeypatch):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    found = profile_file.parse_profile(example.encode(), name="tags")
    assert found.limits.batch_size == 8
    assert found.question.headers == {"X-API-Key": "${TAGGER_KEY}"}


def test_profiles_variables_and_filters_are_all_told():
    listed = PAGE.split("## Profiles")[1].split("Any other")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", listed, re.MULTILINE)) == set(profile.names())
    told = set(re.findall(r"`([a-z0-9_]+)`", PAGE.split("**Template.**")[1].split("**Answers.**")[0]))
    assert told == VARIABLES | FILTERS


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", PAGE))
def test_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).exists()
