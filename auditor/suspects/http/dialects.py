"""How one batch is asked and answered: the package's own contract, or what a profile describes."""

import base64
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

from auditor.canonical import sha256_hex
from auditor.errors import SuspectAnswerError, UsageError
from auditor.evidence.reading import Reading, load_json, printable, read_answers, search
from auditor.records import Answer, Inputs
from auditor.suspects.http.answers import Declared, parse_answers, parse_description
from auditor.suspects.http.profile import OWN_CONTRACT, VARIABLE, Profile
from auditor.suspects.http.rendering import check_json, render


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, complete but for headers and address."""

    method: str
    path: str
    body: bytes
    content_type: str


class Dialect(ABC):
    """What differs from service to service."""

    name = ""
    """Name of the profile, for the record; empty for the package's own contract."""
    sha256 = ""
    reading: Reading | None = None
    describe_path: str | None = None
    """Where the service describes itself; None where it does not."""

    def plain_reading(self) -> Reading:
        """Return how the service's own labels are read, without a map; raises UsageError where a profile maps them."""
        return Reading(answers="answers")

    @abstractmethod
    def description(self, body: bytes) -> Declared:
        """Return what a service says about itself; raises SuspectAnswerError."""

    @abstractmethod
    def question(self, inputs: Inputs) -> Asked:
        """Return the request for a batch."""

    @abstractmethod
    def answers(self, body: bytes) -> tuple[Answer, ...]:
        """Return the answers of a complete body; raises SuspectAnswerError."""


class OwnContract(Dialect):
    """The contract of ``auditor serve``."""

    describe_path = "/v1/model"

    def __init__(self) -> None:
        self._n_labels: int | None = None

    def description(self, body: bytes) -> Declared:
        """Return what the service says about itself."""
        declared = parse_description(body)
        self._n_labels = declared.n_labels
        return declared

    def question(self, inputs: Inputs) -> Asked:
        """Return the request for a batch."""
        return Asked(method="POST", path="/v1/predict", body=question(inputs), content_type="application/json")

    def answers(self, body: bytes) -> tuple[Answer, ...]:
        """Return the answers of a complete body."""
        if self.reading is not None:
            return read_answers(body, self.reading)
        return parse_answers(body, n_labels=self._n_labels)


class ByProfile(Dialect):
    """What a profile describes.

    Args:
        profile: the profile.
        classes: names of the task's classes in label order, for services that answer with names when the profile maps
            none.
    """

    def __init__(self, profile: Profile, *, classes: tuple[str, ...] = ()) -> None:
        self._profile = profile
        self._checked: set[int] = set()
        """Lengths of batches whose request was seen to be what its type says."""
        self._described: Mapping[str, str] = dict.fromkeys(_wanted(profile), "")
        self.name = profile.name
        self.sha256 = profile.sha256
        self.reading = profile.reading
        if not profile.reading.label_map and not any(name.isdigit() for name in classes):
            self.reading = replace(profile.reading, label_map={name: label for label, name in enumerate(classes)})
        self.describe_path = None if profile.described is None else profile.described.path
        # Templates may use what a description would have said even where the service gives none.
        self._take({})

    def description(self, body: bytes) -> Declared:
        """Return what the service says about itself, as far as the profile knows where to look."""
        try:
            value = load_json(body)
        except SuspectAnswerError as error:
            raise SuspectAnswerError(f"service description: {error}") from error
        self._take(value)
        described = self._profile.described
        name = search(described.name, value) if described is not None and described.name else None
        classes = search(described.classes, value) if described is not None and described.classes else None
        n_labels = len(classes) if isinstance(classes, list) else classes
        return Declared(
            sha256=sha256_hex(body),
            name=printable(name),
            answers="",
            input_shape=None,
            n_labels=n_labels if type(n_labels) is int and 2 <= n_labels <= 100_000 else None,
            max_batch=None,
        )

    def question(self, inputs: Inputs) -> Asked:
        """Return the request for a batch."""
        body, content_type = render(self._profile, inputs, self._described)
        if len(inputs) not in self._checked:
            # Batches of one length differ in nothing but numbers; looking at each would take longer than making it.
            check_json(self._profile, body)
            self._checked.add(len(inputs))
        asked = self._profile.question
        return Asked(method=asked.method, path=asked.path, body=body, content_type=content_type)

    def answers(self, body: bytes) -> tuple[Answer, ...]:
        """Return the answers of a complete body."""
        return read_answers(body, self.reading or self._profile.reading)

    def plain_reading(self) -> Reading:
        """Return the profile's reading, which must not hold a map."""
        if self._profile.reading.label_map:
            raise UsageError(f"profile {self.name} has a label map already; calibration starts from one without")
        return self._profile.reading

    def _take(self, value: object) -> None:
        found = {name: search(expression, value) for name, expression in _wanted(self._profile).items()}  # type: ignore[arg-type]
        self._described = {name: printable(each) for name, each in found.items()}


def dialect_of(profile: Profile | None, *, classes: tuple[str, ...] = ()) -> Dialect:
    """Return the dialect of a profile; the built-in profile of the package's own contract is that contract."""
    if profile is None or (profile.name == OWN_CONTRACT and profile.sha256 == _own_digest()):
        return OwnContract()
    if profile.local:
        raise UsageError(f"profile {profile.name}: without [request] and [answer] it suits model files only")
    return ByProfile(profile, classes=classes)


def filled_headers(profile: Profile | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the profile's headers with the environment's secrets in place, and those secrets.

    Raises:
        UsageError: a variable is not set, or holds what no header can.
    """
    secrets: list[str] = []
    filled: dict[str, str] = {}
    for name, value in (profile.question.headers if profile is not None else {}).items():
        for variable in VARIABLE.findall(value):
            secret = os.environ.get(variable, "")
            if not secret or not secret.isprintable() or not secret.isascii():
                raise UsageError(
                    f"the environment variable {variable}, which the profile's header {name} needs, is "
                    + ("not one line of ASCII text" if secret else "not set")
                )
            secrets.append(secret)
        filled[name] = VARIABLE.sub(lambda match: os.environ[match.group(1)], value)
    return filled, tuple(secrets)


def question(inputs: Inputs) -> bytes:
    """Return the request body of the package's own contract, in canonical form."""
    shape = ",".join(str(side) for side in inputs.shape)
    # Nothing in it needs escaping, and a serialiser would look at every character of the pixels.
    end = f'","dtype":"uint8","shape":[{shape}]}}}}'.encode("ascii")
    return b'{"inputs":{"data_b64":"' + base64.b64encode(inputs.tobytes()) + end


def _wanted(profile: Profile) -> Mapping[str, str]:
    return {} if profile.described is None else profile.described.values


def _own_digest() -> str:
    from auditor.suspects.http.profile import source

    return sha256_hex(source(OWN_CONTRACT))
