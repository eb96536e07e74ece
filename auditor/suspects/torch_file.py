"""A suspect that is a model file: safetensors weights with a JSON description, never a pickle."""

import time
from pathlib import Path

from auditor.canonical import JsonValue, canonical_bytes, decimal_string
from auditor.errors import DISTRIBUTION, MissingPartError, SuspectAnswerError, SuspectLoadError
from auditor.models import DESCRIPTION_NAME, WEIGHTS_NAME, load_model, predict
from auditor.records import Answer, Inputs, SuspectId
from auditor.suspects.base import Description, Exchange, RawReply, Suspect

DEFAULT_BATCH = 256
ACCEPTED = f"a folder with {WEIGHTS_NAME} and {DESCRIPTION_NAME}, or the .safetensors file with its .json beside it"


class TorchFileSuspect(Suspect):
    """A model file that is opened and run on this machine.

    Args:
        path: the folder, or the ``.safetensors`` file, with the description beside it.
        batch_size: most inputs per question.

    Raises:
        SuspectLoadError: not such a model.
        MissingPartError: PyTorch is not installed.
    """

    def __init__(self, path: Path, *, batch_size: int = DEFAULT_BATCH) -> None:
        if not path.is_dir() and path.suffix != ".safetensors":
            # Pickled formats run code of whoever wrote them; looking inside would be too late.
            raise SuspectLoadError(f"{path.name}: not a model this program opens; it takes {ACCEPTED}")
        try:
            loaded = load_model(path)
        except ImportError as error:
            raise MissingPartError(
                f"opening a model file needs PyTorch: pip install '{DISTRIBUTION}[train]'"
            ) from error
        self._network = loaded.network
        self._description = loaded.description
        self._name = (path / WEIGHTS_NAME if path.is_dir() else path).name
        self._batch_size = batch_size

    @property
    def batch_size(self) -> int:
        """Largest number of inputs per question."""
        return self._batch_size

    def describe(self) -> Description:
        """Return the file's name, digest, input shape and number of labels."""
        suspect = SuspectId(
            uri=self._name,
            kind="file",
            # Loading compared this digest with the bytes that became the network.
            artefact_sha256=self._description.weights_sha256,
            address="",
            declared_name="",
        )
        return Description(
            suspect=suspect,
            input_shape=self._description.input_shape,
            n_labels=self._description.n_outputs,
            extra={"answers": "scores", "architecture": self._description.architecture},
        )

    def _predict(self, inputs: Inputs) -> Exchange:
        if inputs.shape[1:] != self._description.input_shape:
            raise SuspectAnswerError(f"{self._name}: the model takes inputs of another shape")
        started_s = time.monotonic()
        scores = predict(self._network, inputs)
        elapsed_ms = round((time.monotonic() - started_s) * 1000)
        answers = tuple(
            Answer(label=int(label), scores=tuple(row))
            for label, row in zip(scores.argmax(axis=1), scores.tolist(), strict=True)
        )
        return Exchange(reply=RawReply(answers=answers, body=_rendered(answers), elapsed_ms=elapsed_ms))


def _rendered(answers: tuple[Answer, ...]) -> bytes:
    items: list[JsonValue] = [
        {"label": answer.label, "scores": [decimal_string(score) for score in answer.scores or ()]}
        for answer in answers
    ]
    return canonical_bytes({"answers": items})
