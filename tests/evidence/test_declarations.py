"""The form of declarations: what is accepted, and the one line that names what is not."""

import tomllib

import pytest

from auditor.errors import MalformedError, UsageError
from auditor.evidence.declarations import (
    FORM,
    Declarations,
    declarations_bytes,
    declarations_from_toml,
    form_text,
    read_declarations,
    report_name,
)

NAME = "OA-0123-4567-89AB-CDEF"


def filled(**changes):
    """The form, filled; ``section__name`` changes one field, and None takes it out."""
    tree = tomllib.loads(form_text())
    tree["report"] = NAME
    for field in FORM:
        section, name = field.path.split(".")
        tree[section][name] = "2026-11-22" if name == "date" else f"about {name}"
    for path, value in changes.items():
        *groups, name = path.split("__")
        place = tree[groups[0]] if groups else tree
        if value is None:
            del place[name]
        else:
            place[name] = value
    return tree


def toml(tree):
    lines = [f"{name} = {value!r}" for name, value in tree.items() if not isinstance(value, dict)]
    for group, section in tree.items():
        if isinstance(section, dict):
            lines.append(f"[{group}]")
            lines += [f"{name} = {value!r}" for name, value in section.items()]
    return "\n".join(lines).encode()


def test_the_empty_form_is_valid_and_lacks_everything():
    found = declarations_from_toml(form_text().encode(), what="f")
    assert found.missing(NAME) == ("report", *(field.path for field in FORM))


def test_a_filled_form_lacks_nothing_about_its_own_report_only():
    found = declarations_from_toml(toml(filled()), what="f")
    assert found.missing(NAME) == ()
    assert found.missing("OA-0000-0000-0000-0000") == ("report",)
    assert read_declarations(declarations_bytes(found), what="f") == found


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"case__number": None}, "'case.number' is missing"),
        ({"schema": None}, "'schema' is missing"),
        ({"report": None}, "'report' is missing"),
        ({"schema": "x"}, "'schema' must be"),
        ({"report": "mine"}, "'report' must be"),
        ({"case__colour": "red"}, "'case.colour' is no field"),
        ({"colour": "red"}, "'colour' is no field"),
        ({"case__number": 12}, "'case.number' must be text"),
        ({"case__number": "x" * 4001}, "'case.number' is longer"),
        ({"declarations__date": "22.11.2026"}, "'declarations.date' must be a day"),
        ({"declarations__date": "2026-02-30"}, "'declarations.date' must be a day"),
        ({"declarations__date": "20261122"}, "'declarations.date' must be a day"),
    ],
)
def test_what_is_wrong_is_named(changes, named):
    with pytest.raises(UsageError) as caught:
        declarations_from_toml(toml(filled(**changes)), what="mine.toml")
    assert named in str(caught.value)
    assert str(caught.value).startswith("mine.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"[", b"a = ", b"\xff", b"case = 1", b"x" * 300_000, b"[[[[", b'a = "\n"', b"case = 1\n" * 2]
)
def test_what_is_no_toml_is_one_line(data):
    with pytest.raises(UsageError) as caught:
        declarations_from_toml(data, what="mine.toml")
    assert "\n" not in str(caught.value)


def test_a_section_that_is_text_is_refused():
    tree = filled() | {"case": "none"}
    with pytest.raises(UsageError, match="'case' must be a section"):
        declarations_from_toml(toml(tree), what="f")


def test_dates_and_line_breaks_are_taken_as_people_write_them():
    data = toml(filled()).replace(b"date = '2026-11-22'", b"date = 2026-11-22")
    data = data.replace(b"truth = 'about truth'", b'truth = """\n  I confirm\n  it.\n"""')
    found = declarations_from_toml(data, what="f")
    assert found.values["declarations.date"] == "2026-11-22"
    assert found.values["declarations.truth"] == "I confirm it."


@pytest.mark.parametrize(
    "cut", [lambda d: d[:-2], lambda d: d.replace(b":", b": ", 1), lambda d: b"{}\n", lambda d: b""]
)
def test_declarations_in_a_bundle_are_canonical(cut):
    data = declarations_bytes(declarations_from_toml(toml(filled()), what="f"))
    with pytest.raises(MalformedError):
        read_declarations(cut(data), what="declarations.json")


def test_the_name_of_a_report_follows_from_its_results():
    assert report_name("0123456789abcdef" + "0" * 48) == NAME


def test_every_field_has_a_hint_and_stands_once():
    paths = [field.path for field in FORM]
    assert len(set(paths)) == len(paths)
    assert all(field.hint in form_text() for field in FORM)
    assert isinstance(declarations_from_toml(form_text().encode(), what="f"), Declarations)
