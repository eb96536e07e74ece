"""Endpoint profiles: how to speak to a service, as a short TOML file that is read strictly.

A file without ``[request]`` and ``[answer]`` says how a local model takes its inputs. The folder ``profiles/`` beside
this file holds the built-in ones, each of which may be copied and changed. Secrets come from environment variables: a
header ``Authorization = "Bearer ${API_TOKEN}"`` names the variable, never its value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from importlib import resources
from pathlib import Path

from auditor.errors import UsageError
from auditor.evidence.reading import Reading
from auditor.suspects.base import Encoding

MAX_PROFILE_BYTES = 1 << 20
OWN_CONTRACT = "auditor"
TRIED_IN_ORDER = (
    OWN_CONTRACT,
    "open-inference-v2",
    "tensorflow-serving",
    "mlflow",
    "huggingface-image",
    "torchserve",
    "image-upload",
)
"""Names of the built-in profiles, in the order in which ``auditor probe`` tries them."""
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Body(StrEnum):
    """What a request consists of."""

    TEMPLATE = "template"
    """A Jinja2 template, rendered in a sandbox."""
    IMAGE = "image"
    """The bytes of one image and nothing else."""
    MULTIPART = "multipart"
    """A form with one image as a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How a batch is sent."""

    method: str = "POST"
    path: str = ""
    """Appended to the endpoint as it is, so that it may begin with a slash or a colon."""
    body: Body = Body.TEMPLATE
    content_type: str = "application/json"
    template: str = ""
    """Jinja2 with ``tensor``, ``flat``, ``shape``, ``data_b64``, ``images``, ``image`` (JSON), ``n``, ``described``;
    ``tensor`` and ``images`` may be looped over."""
    file_field: str = "file"
    form: Mapping[str, str] = field(default_factory=dict)
    """Further fields of a multipart form."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """``${NAME}`` in a value stands for an environment variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfDescription:
    """Where the service describes itself; expressions are JMESPath, empty ones are not used."""

    path: str = ""
    name: str = ""
    classes: str = ""
    """To the list of class names, or their number."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Expressions whose findings the template may use as ``described.NAME``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the service permits and costs."""

    batch_size: int = 64
    requests_per_minute: float = 0.0
    """0: no limit."""
    concurrency: int = 0
    """Most requests at a time; 0: no limit."""
    price_per_query: Decimal = Decimal(0)
    currency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One service's dialect, complete."""

    name: str
    title: str
    endpoint: str
    """What the endpoint's address must point to, for a person."""
    sha256: str
    """Digest of the file's bytes."""
    question: Question
    encoding: Encoding
    reading: Reading
    limits: Limits
    described: SelfDescription | None = None
    """None: the service does not describe itself."""
    local: bool = False
    """True: without requests and answers, for a model file."""


def names() -> tuple[str, ...]:
    """Return the names of the built-in profiles."""
    return TRIED_IN_ORDER


def source(name: str) -> bytes:
    """Return the bytes of a built-in profile, or of a file whose name ends in ``.toml``.

    Raises:
        UsageError: there is none of that name, or it cannot be read.
    """
    if name.endswith(".toml"):
        return _file(Path(name))
    if name not in TRIED_IN_ORDER:
        raise UsageError(f"unknown profile {name[:40]!r}; known: {', '.join(TRIED_IN_ORDER)}, or a TOML file")
    return (resources.files("auditor.suspects.http") / "profiles" / f"{name}.toml").read_bytes()


def load(name_or_file: str) -> Profile:
    """Return a built-in profile by name, or the one in a file whose name ends in ``.toml``.

    Raises:
        UsageError: no such profile, or a malformed one; the message names line and field.
    """
    from auditor.suspects.http.profile_file import parse_profile

    name = Path(name_or_file).stem if name_or_file.endswith(".toml") else name_or_file
    return parse_profile(source(name_or_file), name=name)


def _file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_PROFILE_BYTES:
            raise UsageError(f"{path.name}: larger than {MAX_PROFILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path.name}: the profile cannot be read ({type(error).__name__})") from error
