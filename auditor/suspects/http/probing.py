"""What a service lets one see before any money is spent on keys: a few ordinary inputs, and what they show."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue, decimal_string
from auditor.errors import SuspectError, UsageError
from auditor.evidence.calibration import OwnLabels
from auditor.evidence.reading import JsonData, Reading, load_json, printable, search
from auditor.records import Answer, Inputs
from auditor.suspects.base import Attempt
from auditor.suspects.http.adapter import HttpSuspect
from auditor.suspects.http.addresses import check_proxy, parse_address
from auditor.suspects.http.dialects import ByProfile
from auditor.suspects.http.profile import TRIED_IN_ORDER, Profile, load
from auditor.suspects.http.transport import Received

N_SINGLE = 5
N_REPEATS = 3
BATCH = 16
N_INPUTS = N_SINGLE + BATCH
"""Ordinary inputs that a probe needs."""
NEEDS_LOGIN = 401
ASKS_FOR_PATIENCE = 429
MAX_REASONS = 1200
PATIENT_ATTEMPTS = 2
"""Attempts per question once the service is known to answer; while profiles are tried there is one."""
LIMIT_HEADER = re.compile(r"rate-?limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a probe understood; counts include everything that was sent."""

    profile: str
    refused: tuple[tuple[str, str], ...]
    """Profiles tried before, each with the reason why it does not fit."""
    name: str
    """What the service calls itself, or empty."""
    declared_labels: int | None
    names: tuple[str, ...]
    """Label names seen, in the order in which they appeared; empty where numbers were answered."""
    numbers: tuple[int, ...]
    """Label numbers seen, sorted; empty where names were answered."""
    scores: int
    """Scores revealed per answer; 0 where only labels are."""
    score_sum: tuple[float, float] | None
    """Smallest and largest sum of the revealed scores; None without scores."""
    decimals: int | None
    """Most decimals seen in a score; None without scores."""
    same_labels: bool
    """Whether one input asked several times got one label."""
    same_scores: bool
    latency_ms: tuple[int, int]
    """Median and largest latency of single questions."""
    batch: int
    """Largest batch that was answered."""
    batch_problem: str
    """Why a batch of several was not answered, or empty."""
    retry_after: str
    """The last Retry-After header, or empty."""
    limits: Mapping[str, str]
    """Headers in which the service states limits on the rate of requests, by lower-case name, as last seen."""
    agreement: tuple[int, int] | None
    """Answers that name the input's own class, of how many; None where names and classes cannot be compared."""
    requests: int
    """Requests sent, those that a redirect led elsewhere included."""
    queries: int
    """Inputs asked, repeats included: what a service that charges per input counts."""

    def as_object(self) -> dict[str, JsonValue]:
        """Return the findings for ``--json``; fractions as decimal strings."""
        return {
            "profile": self.profile,
            "refused": [{"profile": name, "reason": reason} for name, reason in self.refused],
            "name": self.name,
            "declared_labels": self.declared_labels,
            "names": list(self.names),
            "numbers": list(self.numbers),
            "scores": self.scores,
            "score_sum": None if self.score_sum is None else [decimal_string(value) for value in self.score_sum],
            "decimals": self.decimals,
            "same_labels": self.same_labels,
            "same_scores": self.same_scores,
            "latency_ms": list(self.latency_ms),
            "batch": self.batch,
            "batch_problem": self.batch_problem,
            "retry_after": self.retry_after,
            "limits": dict(self.limits),
            "agreement": None if self.agreement is None else list(self.agreement),
            "requests": self.requests,
            "queries": self.queries,
        }


def probe(
    endpoint: str,
    *,
    inputs: Inputs,
    labels: npt.NDArray[np.int64] | None,
    classes: tuple[str, ...],
    profile: Profile | None = None,
    timeout_s: float = 30.0,
    proxy: str | None = None,
) -> Findings:
    """Ask a service about ordinary inputs and return what its answers show.

    Args:
        endpoint: address of the service.
        inputs: at least ``N_INPUTS`` ordinary inputs, never keys; uint8, shape (n, channels, height, width).
        labels: their classes, or None.
        classes: names of the task's classes.
        profile: how the service is spoken to; None tries the built-in ones in their order, one question each.
        timeout_s: longest time for one answer.
        proxy: address of the proxy to go through.

    Raises:
        SuspectError: the service does not answer, asks for a login, or no profile suits it.
        UsageError: fewer inputs than needed, or a proxy that is no address.
    """
    check_proxy(proxy)
    if len(inputs) < N_INPUTS:
        raise UsageError(f"a probe needs {N_INPUTS} ordinary inputs")

    def connect(candidate: Profile, *, attempts: int, batch_size: int = BATCH) -> HttpSuspect:
        return HttpSuspect(
            endpoint,
            profile=candidate,
            timeout_s=timeout_s,
            max_attempts=attempts,
            batch_size=batch_size,
            proxy=proxy,
        )

    refused: list[tuple[str, str]] = []
    n_requests = n_queries = 0
    candidates = [profile] if profile is not None else [load(name) for name in TRIED_IN_ORDER]
    for candidate in candidates:
        with connect(candidate, attempts=1) as suspect:
            conversation = _Conversation(suspect, candidate, inputs)
            try:
                conversation.begin()
                with connect(candidate, attempts=PATIENT_ATTEMPTS, batch_size=suspect.batch_size) as patient:
                    found = conversation.findings(patient, labels=labels, classes=classes)
            except SuspectError as error:
                n_requests += conversation.n_requests
                n_queries += conversation.n_queries
                if profile is not None or conversation.has_begun or _says_enough(suspect.latest):
                    raise _with_cost(error, latest=suspect.latest, n_requests=n_requests) from error
                refused.append((candidate.name, str(error)))
                continue
        return replace(
            found,
            refused=tuple(refused),
            requests=n_requests + conversation.n_requests,
            queries=n_queries + conversation.n_queries,
        )
    reasons = _together(refused, uri=parse_address(endpoint).uri)
    message = f"none of the built-in profiles suits this service ({_counted(n_requests)}); {reasons}"
    raise SuspectError(message[:MAX_REASONS])


def _says_enough(latest: Received | None) -> bool:
    """Return whether other profiles would be tried in vain: nobody answers, or a login or patience is asked for."""
    return latest is None or latest.status in (NEEDS_LOGIN, ASKS_FOR_PATIENCE)


def _with_cost(error: SuspectError, *, latest: Received | None, n_requests: int) -> SuspectError:
    wait = f", Retry-After: {printable(latest.retry_after)}" if latest is not None and latest.retry_after else ""
    sent = f" ({_counted(n_requests)})" if n_requests else ""
    return type(error)(f"{error}{wait}{sent}")


def _together(refused: Sequence[tuple[str, str]], *, uri: str) -> str:
    """Return the reasons of all profiles, those that share one together."""
    names: dict[str, list[str]] = {}
    for name, text in refused:
        # Where it was tried differs from profile to profile even where the reason does not.
        reason = text.partition(": ")[2] if text.startswith(uri) else text
        names.setdefault(reason, []).append(name)
    if len(names) == 1:
        return f"each of them: {next(iter(names))}"
    return "; ".join(f"{', '.join(sharing)}: {reason}" for reason, sharing in names.items())


def _counted(n_requests: int) -> str:
    return f"{n_requests} {'request' if n_requests == 1 else 'requests'}"


class _Conversation:
    """The questions of one probe to a service whose profile is believed to fit."""

    def __init__(self, suspect: HttpSuspect, profile: Profile, inputs: Inputs) -> None:
        self._suspect = suspect
        self._suspects = [suspect]
        self._profile = profile
        self._inputs = inputs
        self._latest: Received | None = None
        self._n_redirects = 0
        self.n_queries = 0
        self.has_begun = False
        self._names = OwnLabels()
        if isinstance(suspect.dialect, ByProfile) and not profile.reading.label_map:
            suspect.dialect.reading = replace(profile.reading, label_map=self._names)
        self._reading = suspect.dialect.reading or Reading(answers="answers")
        self._asked: list[int] = []
        self._answers: list[Answer] = []
        self._latencies_ms: list[int] = []
        self._revealed: list[tuple[float, ...]] = []
        self._declared: tuple[str, int | None] = ("", None)
        self._retry_after = ""
        self._limits: dict[str, str] = {}

    @property
    def n_requests(self) -> int:
        """Requests sent so far, those that a redirect led elsewhere included."""
        return sum(suspect.n_requests for suspect in self._suspects) + self._n_redirects

    def begin(self) -> None:
        """Read the service's description and ask one input; raises SuspectError when that fails."""
        try:
            description = self._suspect.describe()
        finally:
            self._notice_latest()
        self._declared = (description.suspect.declared_name, description.n_labels)
        self._ask([0], single=True)
        self.has_begun = True

    def findings(
        self, patient: HttpSuspect, *, labels: npt.NDArray[np.int64] | None, classes: tuple[str, ...]
    ) -> Findings:
        """Ask the other inputs and return what all of it shows.

        Args:
            patient: the same service, waited for where it asks for that.
            labels: the inputs' classes, or None.
            classes: names of the task's classes.
        """
        # What the service said of itself, and the names it used, are in there.
        patient.dialect = self._suspect.dialect
        self._suspect = patient
        self._suspects.append(patient)
        for row in range(1, N_SINGLE):
            self._ask([row], single=True)
        repeats = [self._ask([0], single=True)[0] for _ in range(N_REPEATS - 1)]
        batch, problem = self._batch()
        numbers = sorted({answer.label for answer in self._answers}) if not self._names else []
        same_labels = all(each.label == self._answers[0].label for each in repeats)
        asked_again = self._revealed[N_SINGLE : N_SINGLE + N_REPEATS - 1]
        sums = [sum(scores) for scores in self._revealed if scores]
        return Findings(
            profile=self._profile.name,
            refused=(),
            name=self._declared[0],
            declared_labels=self._declared[1],
            names=tuple(printable(name) for name in self._names),
            numbers=tuple(numbers),
            scores=max((len(scores) for scores in self._revealed), default=0),
            score_sum=(min(sums), max(sums)) if sums else None,
            decimals=max((_decimals(score) for scores in self._revealed for score in scores), default=None),
            same_labels=same_labels,
            same_scores=same_labels and all(each == self._revealed[0] for each in asked_again),
            latency_ms=(round(median(self._latencies_ms)), max(self._latencies_ms)),
            batch=batch,
            batch_problem=problem,
            retry_after=self._retry_after,
            limits=dict(sorted(self._limits.items())),
            agreement=self._agreement(labels, classes),
            requests=self.n_requests,
            queries=self.n_queries,
        )

    def _batch(self) -> tuple[int, str]:
        size = min(BATCH, self._suspect.batch_size)
        if size == 1:
            return 1, ""
        try:
            self._ask(list(range(N_SINGLE, N_SINGLE + size)), single=False)
        except SuspectError as error:
            return 1, str(error)
        return size, ""

    def _ask(self, rows: Sequence[int], *, single: bool) -> tuple[Answer, ...]:
        self.n_queries += len(rows)
        try:
            exchange = self._suspect.query(np.ascontiguousarray(self._inputs[list(rows)]))
        except SuspectError as error:
            self._notice_limits(error.attempts)
            raise
        finally:
            self._notice_latest()
        self._notice_limits(exchange.failed_attempts)
        reply = exchange.reply
        if single:
            self._latencies_ms.append(reply.elapsed_ms)
        self._asked += rows
        self._answers += reply.answers
        self._revealed += revealed_scores(reply.body, self._reading)
        return reply.answers

    def _notice_latest(self) -> None:
        latest = self._suspect.latest
        if latest is None or latest is self._latest:
            return
        self._latest = latest
        self._n_redirects += len(latest.redirects)
        self._notice_headers(latest.headers)

    def _notice_limits(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.wire is not None:
                self._notice_headers(attempt.wire.headers)

    def _notice_headers(self, headers: Sequence[tuple[str, str]]) -> None:
        told = dict(headers)
        self._retry_after = told.get("retry-after", self._retry_after)
        self._limits |= {name: value for name, value in told.items() if LIMIT_HEADER.search(name)}

    def _agreement(self, labels: npt.NDArray[np.int64] | None, classes: tuple[str, ...]) -> tuple[int, int] | None:
        if labels is None:
            return None
        own = {number: name for name, number in self._names.items()}
        if own and not set(own.values()) & set(classes):
            return None
        told = [own.get(answer.label, "") if own else answer.label for answer in self._answers]
        truth = [classes[labels[row]] if own else int(labels[row]) for row in self._asked]
        return sum(a == b for a, b in zip(told, truth, strict=True)), len(told)


def revealed_scores(body: bytes, reading: Reading) -> list[tuple[float, ...]]:
    """Return the scores that each answer of a readable body reveals, however many; empty ones where it reveals none."""
    value = load_json(body)
    found = search(reading.answers or reading.scores or reading.labels, value)
    items = found if isinstance(found, list) else []
    width = _width(value, reading, len(items))
    if width > 1:
        items = [items[start : start + width] for start in range(0, len(items), width)]
    return [_scores(item) for item in items]


def _width(value: JsonData, reading: Reading, n_items: int) -> int:
    sides = search(reading.shape, value) if reading.shape else None
    first = sides[0] if isinstance(sides, list) and sides else None
    return n_items // first if type(first) is int and first > 0 else 1


def _scores(item: JsonData) -> tuple[float, ...]:
    if isinstance(item, dict):
        for name in ("scores", "top"):
            if isinstance(item.get(name), list):
                return _scores(item[name])
        values = [item["score"]] if "score" in item else [] if "label" in item else list(item.values())
    elif isinstance(item, list):
        values = [entry.get("score") if isinstance(entry, dict) else entry for entry in item]
        values = values if len(item) > 1 or (item and isinstance(item[0], dict)) else []
    else:
        values = []
    return tuple(float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool))


def _decimals(score: float) -> int:
    digits, _, exponent = repr(score).partition("e")
    return max(0, len(digits.partition(".")[2].rstrip("0")) - int(exponent or 0))
