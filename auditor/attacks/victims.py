"""What a thief learns by asking: answers of a model or service, bought once within a budget and kept."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.datasets import Labels
from auditor.errors import MalformedError, SuspectAnswerError, UsageError
from auditor.models import LoadedModel, predict
from auditor.records import Answer, Inputs, Progress
from auditor.suspects.base import Suspect
from auditor.transforms import Probabilities

MAX_KEPT_BYTES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the victim said about some images."""

    labels: Labels
    probabilities: Probabilities | None
    """Shape (n, outputs), normalised; labels the victim did not score have 0. None where it gives labels only."""

    def __len__(self) -> int:
        return len(self.labels)


class Victim(ABC):
    """Something a thief can ask."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return what is asked, without credentials: a digest or an address."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int] | None:
        """Return (channels, height, width), or None where the victim does not say."""

    @property
    @abstractmethod
    def n_outputs(self) -> int | None:
        """Return the number of labels, or None where the victim does not say."""

    @property
    @abstractmethod
    def may_score(self) -> bool:
        """Return False where the victim says that it answers with labels only."""

    @abstractmethod
    def ask(self, inputs: Inputs, progress: Progress) -> Answers:
        """Return one answer per image; each image is asked exactly once.

        Raises:
            SuspectError: the victim cannot be asked or gave an unusable answer.
        """


class OpenVictim(Victim):
    """A model in the thief's hands."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """Return the digest of the model's file, or of its weights where it was never saved."""
        if self._model.description.weights_sha256:
            return self._model.description.weights_sha256
        from safetensors.torch import save

        # A clone each, because safetensors refuses tensors that share memory.
        return sha256_hex(save({name: value.clone() for name, value in self._model.network.state_dict().items()}))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width)."""
        return self._model.description.input_shape

    @property
    def n_outputs(self) -> int:
        """Return the number of outputs."""
        return self._model.description.n_outputs

    @property
    def may_score(self) -> bool:
        """Return True."""
        return True

    def ask(self, inputs: Inputs, progress: Progress) -> Answers:
        """Return the softmax outputs."""
        probabilities = normalised(predict(self._model.network, inputs))
        return Answers(labels=np.argmax(probabilities, axis=1), probabilities=probabilities)


class AskedVictim(Victim):
    """A suspect behind an adapter, such as a service: it is asked in batches and nothing else is known of it."""

    def __init__(self, suspect: Suspect) -> None:
        self._suspect = suspect
        self._description = suspect.describe()

    @property
    def name(self) -> str:
        """Return the address without credentials."""
        return self._description.suspect.uri

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """Return what the service declares."""
        return self._description.input_shape

    @property
    def n_outputs(self) -> int | None:
        """Return what the service declares."""
        return self._description.n_labels

    @property
    def may_score(self) -> bool:
        """Return False where the service declares labels only."""
        return self._description.extra.get("answers") != "labels"

    def ask(self, inputs: Inputs, progress: Progress) -> Answers:
        """Ask batch by batch; a batch that fails for good ends it."""
        answers: list[Answer] = []
        tops: list[Mapping[int, float] | None] = []
        progress.begin("asking the victim", len(inputs))
        while len(answers) < len(inputs):
            batch = inputs[len(answers) : len(answers) + self._suspect.batch_size]
            reply = self._suspect.query(batch).reply
            answers += reply.answers
            tops += _tops(reply.body, n=len(batch)) if reply.answers[0].scores is None else [None] * len(batch)
            progress.advance(len(batch))
        progress.end()
        return _collected(answers, tops, n_outputs=self.n_outputs)


def _tops(body: bytes, *, n: int) -> list[Mapping[int, float] | None]:
    """Return the scored labels of a ``top-k`` answer in the contract of ``auditor serve``, None for other answers.

    The adapter has checked the same bytes already; whatever does not look as expected is an answer without scores.
    """
    try:
        items = json.loads(body)["answers"]
        tops = [{entry["label"]: float(entry["score"]) for entry in item["top"]} for item in items]
    except (ValueError, TypeError, KeyError):
        return [None] * n
    if len(tops) != n or not all(tops) or not all(type(label) is int for top in tops for label in top):
        return [None] * n
    return list(tops)


def _collected(answers: list[Answer], tops: list[Mapping[int, float] | None], *, n_outputs: int | None) -> Answers:
    labels = np.array([answer.label for answer in answers], dtype=np.int64)
    rows = [answer.scores for answer in answers]
    if all(row is not None for row in rows):
        if len({len(row) for row in rows if row is not None}) > 1:
            raise SuspectAnswerError("the victim gave different numbers of scores")
        return Answers(labels=labels, probabilities=normalised(np.array(rows)))
    named = [dict(top) for top in tops if top is not None]
    if len(named) < len(answers):
        return Answers(labels=labels, probabilities=None)
    width = n_outputs or 1 + max(int(labels.max()), *(max(top) for top in named))
    scores = np.zeros((len(named), width))
    for row, top in zip(scores, named, strict=True):
        if max(top) >= width:
            raise SuspectAnswerError("the victim scored a label beyond those it declares")
        row[list(top)] = list(top.values())
    return Answers(labels=labels, probabilities=normalised(scores))


def normalised(scores: npt.NDArray[np.float64] | npt.NDArray[np.float32]) -> Probabilities:
    """Return the rows divided by their sums.

    Raises:
        SuspectAnswerError: a score is negative, or all scores of an answer are 0; such scores are no probabilities.
    """
    values = np.asarray(scores, dtype=np.float64)
    sums = values.sum(axis=1, keepdims=True)
    if (values < 0).any() or not (sums > 0).all():
        raise SuspectAnswerError("the victim's scores are not probabilities; extract from its labels instead")
    return np.asarray(values / sums)


def chosen_rows(n: int, *, budget: int | None, seed: int) -> npt.NDArray[np.intp]:
    """Return which of n images are asked: all of them, or a draw of ``budget``, in rising order.

    Raises:
        UsageError: the budget is not positive, or larger than the data.
    """
    if budget is None:
        return np.arange(n)
    if not 1 <= budget <= n:
        raise UsageError(f"a budget of {budget} queries does not fit the attacker's {n} images")
    return np.sort(np.random.default_rng([seed, n]).permutation(n)[:budget])


def kept_answers(path: Path, *, victim: Victim, inputs: Inputs, progress: Progress) -> Answers:
    """Return the answers kept in a file, or ask and keep them; the file names victim and images.

    Raises:
        UsageError: the file holds answers of another victim or to other images, or cannot be written.
        MalformedError: the file is damaged.
    """
    from safetensors.numpy import save

    about = {"victim": victim.name, "inputs_sha256": sha256_hex(np.ascontiguousarray(inputs).tobytes())}
    if path.exists():
        return _read_kept(path, about=about, n=len(inputs))
    answers = victim.ask(inputs, progress)
    arrays: dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]] = {"labels": answers.labels}
    if answers.probabilities is not None:
        arrays["probabilities"] = answers.probabilities
    try:
        path.write_bytes(save(arrays, metadata=about))
    except OSError as error:
        raise UsageError(f"{path.name}: the answers cannot be written ({type(error).__name__})") from error
    return answers


def _read_kept(path: Path, *, about: Mapping[str, str], n: int) -> Answers:
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_KEPT_BYTES:
            raise MalformedError(f"{path.name}: larger than {MAX_KEPT_BYTES} bytes")
        with safe_open(path, framework="numpy") as file:
            found = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{path.name}: not a file of kept answers ({type(error).__name__})") from error
    if found != dict(about):
        raise UsageError(f"{path.name} holds answers of another victim or to other images; name another file")
    labels, probabilities = arrays.get("labels"), arrays.get("probabilities")
    if labels is None or labels.shape != (n,) or labels.dtype != np.int64:
        raise MalformedError(f"{path.name}: not a file of kept answers")
    if probabilities is not None and (probabilities.ndim != 2 or len(probabilities) != n):
        raise MalformedError(f"{path.name}: not a file of kept answers")
    return Answers(labels=labels, probabilities=None if probabilities is None else normalised(probabilities))
