"""What only a person can say in a report: the form, its reading from TOML, and its canonical form in a bundle.

Every field of the form must be there; an empty one stays blank in the report, which is then a draft. The last field
that makes a report final is ``report``, the name of the report that the declarations are about: nobody can declare the
truth of a report that does not exist yet.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from auditor.canonical import JsonValue, canonical_bytes, parse_canonical_object
from auditor.errors import AuditorError, MalformedError, UsageError

SCHEMA = "mlaudit.declarations/1"
MAX_TEXT = 4000
MAX_BYTES = 256 * 1024
WHAT = "declarations"
REPORT_NAME = re.compile(r"OA(-[0-9A-F]{4}){4}")
DATE_FIELD = "declarations.date"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One field of the form."""

    path: str
    """``section.name``."""
    hint: str
    """What to write there."""


def _field(path: str, hint: str) -> FormField:
    return FormField(path=path, hint=hint)


FORM: tuple[FormField, ...] = (
    _field("case.number", "Number of the case or matter."),
    _field("case.court", "Court or other requester, with address."),
    _field("case.instructions", "Instructions received and questions put to you, with their date."),
    _field("examiner.name", "Your name."),
    _field("examiner.role", "Your role, such as: expert appointed by the court."),
    _field("examiner.organisation", "Organisation and address."),
    _field("examiner.qualifications", "Qualifications; publications of the last ten years."),
    _field("examiner.testimony", "Testimony of the last four years; what you are paid."),
    _field("items.reference_model", "Name, provenance and condition on receipt of the reference model."),
    _field("items.suspect_public_since", "When the suspect was first public, and how that is known."),
    _field("items.suspect_account", "Account used to reach the suspect, or: a file handed over by whom."),
    _field("items.custody", "Custody of key set and keys between sealing and this examination."),
    _field("items.other_tests", "Other key sets tried on this suspect, other suspects examined with this key set."),
    _field("opinion.fitness", "Fitness of the method for this kind of suspect; is it inside the validated domain?"),
    _field("opinion.range", "Range of opinion in the field, and your reasons."),
    _field("alternatives.common_ancestor", "Comment on: common ancestor."),
    _field("alternatives.shared_training_data", "Comment on: shared training data."),
    _field("alternatives.third_party", "Comment on: distillation from a third party."),
    _field("alternatives.transferable_keys", "Comment on: transferable keys."),
    _field("alternatives.wrapper", "Comment on: wrapper or ensemble behind the endpoint."),
    _field("alternatives.nondeterminism", "Comment on: nondeterminism."),
    _field("alternatives.drift", "Comment on: drift between questions."),
    _field("alternatives.small_bank", "Comment on: bank of independent models too small."),
    _field("alternatives.keys_leaked", "Comment on: keys leaked or published."),
    _field("alternatives.many_secrets", "Comment on: owner tried many secrets."),
    _field("declarations.independence", "Independence and interests."),
    _field("declarations.own_knowledge", "Which facts are of your own knowledge; work done by others."),
    _field("declarations.duty", "Your duty to the court: that you understand it and have followed it."),
    _field("declarations.truth", "Declaration of truth, in the words that your court demands."),
    _field("declarations.review", "Peer review: by whom, when, with what result; or that there was none."),
    _field("declarations.place", "Place of signing."),
    _field("declarations.date", "Day of signing, as 2026-11-22."),
)
"""The form in its order; every field must be in the file, and filled before a report is final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """A person's declarations."""

    report: str
    """Name of the report they are about, or empty when it does not exist yet."""
    values: Mapping[str, str]
    """Text by ``section.name``, for every field of the form; empty where nothing was said."""

    def missing(self, report: str) -> tuple[str, ...]:
        """Return what is still to be given before ``report`` is final."""
        blank = [field.path for field in FORM if not self.values[field.path]]
        return tuple([] if self.report == report else ["report"]) + tuple(blank)


def report_name(results_sha256: str) -> str:
    """Return the report's name: 64 bits of the results' digest in groups, short enough for every page's foot."""
    digits = results_sha256[:16].upper()
    return "OA-" + "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def form_text() -> str:
    """Return the commented form as TOML, all fields empty."""
    lines = [
        "# What only a person can say in the report. Fill every field; what stays empty stays blank in the report,",
        "# which is then marked DRAFT on every page. Text may span lines between three quotation marks.",
        "",
        f'schema = "{SCHEMA}"',
        "# Name of the report these declarations are about (OA-…, foot of every page). Leave it empty before the",
        "# report exists: nobody can declare the truth of a report that is still to be made.",
        'report = ""',
    ]
    section = ""
    for field in FORM:
        group, name = field.path.split(".")
        if group != section:
            lines += ["", f"[{group}]"]
            section = group
        lines += [f"# {field.hint}", f'{name} = ""']
    return "\n".join(lines) + "\n"


def declarations_from_toml(data: bytes, *, what: str) -> Declarations:
    """Read a filled form.

    Raises:
        UsageError: not TOML, or a field is missing, unknown or not text; the message names it.
    """
    if len(data) > MAX_BYTES:
        raise UsageError(f"{what}: larger than {MAX_BYTES} bytes")
    try:
        tree = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: not UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{what}: not TOML: {told}") from error
    return _read(tree, what=what, error=UsageError)


def declarations_object(declarations: Declarations) -> dict[str, JsonValue]:
    """Return declarations as they are signed."""
    sections: dict[str, dict[str, JsonValue]] = {}
    for field in FORM:
        group, name = field.path.split(".")
        sections.setdefault(group, {})[name] = declarations.values[field.path]
    return {"schema": SCHEMA, "report": declarations.report, **sections}


def declarations_bytes(declarations: Declarations) -> bytes:
    """Return the bytes of ``declarations.json``."""
    return canonical_bytes(declarations_object(declarations)) + b"\n"


def read_declarations(data: bytes, *, what: str) -> Declarations:
    """Read ``declarations.json``.

    Raises:
        MalformedError: not canonical, or a field is missing, unknown or out of range.
    """
    return declarations_of(parse_canonical_object(data, what=what), what=what)


def declarations_of(value: Mapping[str, JsonValue], *, what: str) -> Declarations:
    """Read declarations that are part of something signed; raises as :func:`read_declarations` does."""
    return _read(value, what=what, error=MalformedError)


def _read(tree: Mapping[str, object], *, what: str, error: type[AuditorError]) -> Declarations:
    wanted: dict[str, list[str]] = {}
    for field in FORM:
        group, name = field.path.split(".")
        wanted.setdefault(group, []).append(name)
    for name in ("schema", "report", *wanted):
        if name not in tree:
            raise error(f"{what}: {name!r} is missing")
    _refuse_unknown(tree, {"schema", "report", *wanted}, what=what, prefix="", error=error)
    if tree["schema"] != SCHEMA:
        raise error(f"{what}: 'schema' must be {SCHEMA!r}")
    values: dict[str, str] = {}
    for group, names in wanted.items():
        section = tree[group]
        if not isinstance(section, Mapping):
            raise error(f"{what}: {group!r} must be a section")
        _refuse_unknown(section, set(names), what=what, prefix=f"{group}.", error=error)
        for name in names:
            path = f"{group}.{name}"
            if name not in section:
                raise error(f"{what}: {path!r} is missing; leave it empty if there is nothing to say yet")
            values[path] = _text(section[name], path=path, what=what, error=error)
    report = _text(tree["report"], path="report", what=what, error=error)
    if report and not REPORT_NAME.fullmatch(report):
        raise error(f"{what}: 'report' must be the name of a report, such as OA-0123-4567-89AB-CDEF, or empty")
    day = values[DATE_FIELD]
    if day and not _is_day(day):
        raise error(f"{what}: {DATE_FIELD!r} must be a day such as 2026-11-22, or empty")
    return Declarations(report=report, values=values)


def _refuse_unknown(
    tree: Mapping[str, object], known: set[str], *, what: str, prefix: str, error: type[AuditorError]
) -> None:
    unknown = sorted(set(tree) - known)
    if unknown:
        raise error(f"{what}: {(prefix + unknown[0])[:100]!r} is no field of the form")


def _text(value: object, *, path: str, what: str, error: type[AuditorError]) -> str:
    if isinstance(value, date) and not isinstance(value, datetime) and path == DATE_FIELD:
        return value.isoformat()
    if not isinstance(value, str):
        raise error(f"{what}: {path!r} must be text")
    # Line breaks of the file carry no meaning; a page breaks its own lines.
    text = " ".join(value.split())
    if len(text) > MAX_TEXT:
        raise error(f"{what}: {path!r} is longer than {MAX_TEXT} characters")
    return text


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
