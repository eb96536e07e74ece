"""The strict reader of profile files: every field is known, and every complaint names its line."""

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar

import numpy as np

from auditor.canonical import sha256_hex
from auditor.errors import MalformedError, SuspectAnswerError, UsageError
from auditor.evidence.reading import EXPRESSIONS, MAX_NAMES, NO_LABEL, Reading, Unknown, check_expression
from auditor.suspects.base import Encoding, ImageFormat, Layout
from auditor.suspects.http.profile import (
    VARIABLE,
    Body,
    Limits,
    Profile,
    Question,
    SelfDescription,
)
from auditor.suspects.http.rendering import check_json, render
from auditor.suspects.http.templates import template_problem

SCHEMA = "auditor.profile/1"
MAX_TEXT = 64 * 1024
MAX_BATCH = 4096
SECRET_HEADER = re.compile(r"authori[sz]ation|cookie|token|secret|password|(^|[-_])key($|[-_])|api-?key", re.IGNORECASE)
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
REFUSED_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "cookie"})
E = TypeVar("E", bound=StrEnum)


def parse_profile(data: bytes, *, name: str) -> Profile:
    """Return the profile in the bytes of a TOML file.

    Raises:
        UsageError: not such a file; the message names line and field, and never repeats a value.
    """
    what = f"profile {name[:60]}"
    try:
        text = data.decode("utf-8")
        tree = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{what}: not UTF-8 text") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{what}: not TOML ({_where(error)})") from error
    top = _Table(tree, text=text, what=what, path=())
    if top.text("schema") != SCHEMA:
        raise top.problem("schema", f"must be {SCHEMA!r}")
    title, endpoint = top.text("title", ""), top.text("endpoint", "")
    described = top.table("describe") if "describe" in tree else None
    local = "request" not in tree and "answer" not in tree
    profile = Profile(
        name=name[:60],
        title=title,
        endpoint=endpoint,
        sha256=sha256_hex(data),
        described=None if described is None else _described(described),
        question=Question() if local else _question(top.table("request")),
        encoding=_encoding(top.table("input")),
        reading=_reading(None if local else top.table("answer"), top.table("labels")),
        limits=_limits(top.table("limits")),
        local=local,
    )
    top.finish()
    if local:
        return profile
    if profile.question.body is not Body.TEMPLATE and profile.limits.batch_size != 1:
        raise top.problem("limits", "batch_size must be 1 where images are sent")
    _try_out(profile, top)
    return profile


def _try_out(profile: Profile, top: "_Table") -> None:
    """Fill the template once, so that a mistake in it shows before the first question."""
    described = {} if profile.described is None else dict.fromkeys(profile.described.values, "")
    channels = max(3, len(profile.encoding.mean), len(profile.encoding.std))
    try:
        check_json(profile, render(profile, np.zeros((1, channels, 2, 2), dtype=np.uint8), described)[0])
    except SuspectAnswerError as error:
        raise top.problem("request", f"does not work: {error}") from error


class _Table:
    """One table of the file; every field is asked for, the others are refused."""

    def __init__(self, value: Mapping[str, object], *, text: str, what: str, path: tuple[str, ...]) -> None:
        self._rest = dict(value)
        self._text = text
        self._what = what
        self._path = path

    def problem(self, name: str, complaint: str) -> UsageError:
        """Return the error about a field of this table."""
        line = _line(self._text, (*self._path, name))
        field = ".".join((*self._path, name))
        return UsageError(f"{self._what}, line {line}: {field[:80]} {complaint}")

    def text(self, name: str, default: str | None = None, *, low: int = 0) -> str:
        value = self._take(name, default)
        if not isinstance(value, str) or not low <= len(value) <= MAX_TEXT:
            raise self.problem(name, "must be text")
        return value

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.problem(name, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.problem(name, f"must be a whole number from {low} to {high}")
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self._take(name, [])
        if not isinstance(value, list) or not all(type(item) in (int, float) for item in value) or len(value) > 1024:
            raise self.problem(name, "must be a list of numbers")
        return tuple(float(item) for item in value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or len(value) > MAX_NAMES:
            raise self.problem(name, "must be a list of texts")
        return tuple(value)

    def choice(self, name: str, default: E) -> E:
        value = self._take(name, default.value)
        known = {each.value: each for each in type(default)}
        if not isinstance(value, str) or value not in known:
            raise self.problem(name, f"must be one of {', '.join(known)}")
        return known[value]

    def expression(self, name: str, default: str = "") -> str:
        value = self.text(name, default)
        try:
            check_expression(value, what="")
        except MalformedError as error:
            raise self.problem(name, "is not a JMESPath expression") from error
        return value

    def table(self, name: str) -> "_Table":
        value = self._take(name, {})
        if not isinstance(value, dict):
            raise self.problem(name, "must be a table")
        return _Table(value, text=self._text, what=self._what, path=(*self._path, name))

    def left(self) -> tuple[str, ...]:
        return tuple(self._rest)

    def rest_as_texts(self) -> dict[str, str]:
        return {name: self.text(name) for name in self.left()}

    def rest_as_labels(self) -> dict[str, int]:
        found = {name: self.integer(name, 0, low=-1, high=NO_LABEL - 1) for name in self.left()}
        return {name: NO_LABEL if label == -1 else label for name, label in found.items()}

    def finish(self) -> None:
        if self._rest:
            name = next(iter(self._rest))
            raise self.problem(name, "is not a known field")

    def _take(self, name: str, default: object) -> object:
        if name not in self._rest and default is None:
            raise self.problem(name, "is missing")
        return self._rest.pop(name, default)


def _described(table: _Table) -> SelfDescription:
    values = table.table("values")
    found = SelfDescription(
        path=_path(table),
        name=table.expression("name"),
        classes=table.expression("classes"),
        values={name: values.expression(name) for name in list(values._rest)},
    )
    table.finish()
    return found


def _question(table: _Table) -> Question:
    form, headers = table.table("form"), table.table("headers")
    body = table.choice("body", Body.TEMPLATE)
    found = Question(
        method=table.text("method", "POST"),
        path=_path(table),
        body=body,
        content_type=_line_of_text(table, "content_type", "application/json"),
        template=table.text("template", None if body is Body.TEMPLATE else ""),
        file_field=_line_of_text(table, "file_field", "file"),
        form=form.rest_as_texts(),
        headers=_headers(headers),
    )
    if found.method not in ("POST", "PUT"):
        raise table.problem("method", "must be POST or PUT")
    if body is Body.TEMPLATE:
        complaint = template_problem(found.template)
        if complaint:
            raise table.problem("template", complaint)
    table.finish()
    return found


def _headers(table: _Table) -> dict[str, str]:
    found = table.rest_as_texts()
    for name, value in found.items():
        if not HEADER_NAME.fullmatch(name):
            raise table.problem(name, "is not a header's name")
        if name.lower() in REFUSED_HEADERS:
            raise table.problem(name, "is a header that the profile cannot set")
        if not value.isprintable() or not value.isascii():
            raise table.problem(name, "must be one line of ASCII text")
        if SECRET_HEADER.search(name) and not VARIABLE.search(value):
            raise table.problem(name, "must take its secret from an environment variable, such as ${API_TOKEN}")
    return found


def _encoding(table: _Table) -> Encoding:
    found = Encoding(
        layout=table.choice("layout", Layout.CHANNELS_FIRST),
        divide=table.number("divide", 1.0, low=1e-6, high=1e6),
        mean=table.numbers("mean"),
        std=table.numbers("std"),
        image=table.choice("image", ImageFormat.PNG),
        jpeg_quality=table.integer("jpeg_quality", 95, low=1, high=100),
    )
    if any(value == 0 for value in found.std):
        raise table.problem("std", "must not hold zero")
    table.finish()
    return found


def _reading(table: _Table | None, labels: _Table) -> Reading:
    expressions = dict.fromkeys(EXPRESSIONS, "") | {"answers": "answers"}
    if table is not None:
        expressions = {name: table.expression(name) for name in EXPRESSIONS}
        table.finish()
    if table is not None and bool(expressions["answers"]) == bool(expressions["labels"] or expressions["scores"]):
        raise table.problem("answers", "or else labels and scores must say where the answers are, not both")
    listed, mapped = labels.texts("names"), labels.table("map").rest_as_labels()
    if listed and mapped:
        raise labels.problem("map", "and names exclude each other")
    if len(set(listed)) != len(listed):
        raise labels.problem("names", "must not hold a name twice")
    unknown = labels.choice("unknown", Unknown.EXTRA)
    labels.finish()
    return Reading(
        answers=expressions["answers"],
        labels=expressions["labels"],
        scores=expressions["scores"],
        shape=expressions["shape"],
        label_map=mapped or {name: number for number, name in enumerate(listed)},
        unknown=unknown,
    )


def _limits(table: _Table) -> Limits:
    price_text = table.text("price_per_query", "0")
    try:
        price = Decimal(price_text)
    except InvalidOperation as error:
        raise table.problem("price_per_query", 'must be a decimal number in quotes, such as "0.002"') from error
    if not price.is_finite() or not 0 <= price < 10**9:
        raise table.problem("price_per_query", "must be an amount from 0 on")
    found = Limits(
        batch_size=table.integer("batch_size", 64, low=1, high=MAX_BATCH),
        requests_per_minute=table.number("requests_per_minute", 0.0, low=0.0, high=1e6),
        concurrency=table.integer("concurrency", 0, low=0, high=MAX_BATCH),
        price_per_query=price,
        currency=_line_of_text(table, "currency", ""),
    )
    table.finish()
    return found


def _path(table: _Table) -> str:
    path = _line_of_text(table, "path", "")
    if path and (path[0] not in "/:" or path.startswith("//") or re.search(r"[\s?#\\@]", path)):
        raise table.problem("path", "must begin with a slash or a colon and hold no blank, query or fragment")
    return path


def _line_of_text(table: _Table, name: str, default: str) -> str:
    value = table.text(name, default)
    if not value.isprintable() or '"' in value or len(value) > 1000:
        raise table.problem(name, "must be one line of text without quotes")
    return value


def _where(error: Exception) -> str:
    return str(error)[:120] if isinstance(error, tomllib.TOMLDecodeError) else "nested too deeply"


def _line(text: str, path: tuple[str, ...]) -> int:
    """Return the line on which a field stands, or else the line of the nearest table around it, or else the first."""
    if not path:
        return 1
    *tables, name = path
    wanted, here, best = ".".join(tables), "", 0
    quoted = ("", '"', "'")
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        header = re.fullmatch(r"\[\s*([^\[\]]+?)\s*\](\s*#.*)?", stripped)
        if header:
            here = re.sub(r"[\"'\s]", "", header.group(1))
            if here == ".".join(path):
                return number
            best = number if here == wanted else best
        elif here == wanted and any(re.match(re.escape(f"{q}{name}{q}") + r"\s*[=.]", stripped) for q in quoted):
            return number
    return best or _line(text, tuple(tables))
