"""A suspect that is a scikit-learn model saved by skops: a format that constructs known types and runs no code."""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.errors import MissingPartError, SuspectAnswerError, SuspectLoadError
from auditor.evidence.reading import Reading, printable
from auditor.records import Inputs
from auditor.suspects.base import (
    LOCAL_BATCH,
    Description,
    Encoding,
    Layout,
    LocalSuspect,
    encode_tensor,
    read_model_file,
)


class SklearnSuspect(LocalSuspect):
    """A scikit-learn classifier in a ``.skops`` file; it gets one row of numbers per input.

    Args:
        path: the file.
        encoding: how pixels become rows; None divides by 255.
        reading: maps the model's own labels to those of the task.
        classes: names of the task's classes in label order, for models that answer with names.
        batch_size: most inputs per question.

    Raises:
        SuspectLoadError: not such a file, or one with types that skops does not trust.
        MissingPartError: skops is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoding: Encoding | None = None,
        reading: Reading | None = None,
        classes: tuple[str, ...] = (),
        batch_size: int = LOCAL_BATCH,
    ) -> None:
        try:
            import skops.io
        except ImportError as error:
            raise MissingPartError(
                "opening a scikit-learn model needs skops; install the extra [sklearn] (pip install skops)"
            ) from error
        data = read_model_file(path)
        try:
            unknown = skops.io.get_untrusted_types(data=data)
        except (BadZipFile, KeyError, ValueError, TypeError, RecursionError, AttributeError, OSError) as error:
            raise SuspectLoadError(f"{path.name}: not a model that skops opens") from error
        if unknown:
            told = printable(", ".join(sorted(map(str, unknown))), limit=200)
            raise SuspectLoadError(f"{path.name}: holds types that are not trusted, which might run code: {told}")
        try:
            # Nothing beyond skops' own list is trusted.
            model = skops.io.loads(data, trusted=[])
        except Exception as error:
            raise SuspectLoadError(f"{path.name}: cannot be put together ({type(error).__name__})") from error
        if not hasattr(model, "predict") or getattr(model, "classes_", None) is None:
            raise SuspectLoadError(f"{path.name}: not a classifier that was fitted")
        self._model, self._name, self._sha256 = model, path.name, sha256_hex(data)
        self._encoding = encoding or Encoding(layout=Layout.FLAT, divide=255.0)
        self._classes = np.asarray(model.classes_)
        if reading is None and self._classes.dtype.kind in "UO":
            names = {} if any(name.isdigit() for name in classes) else {name: i for i, name in enumerate(classes)}
            reading = Reading(answers="answers", label_map=names)
        super().__init__(reading=reading, batch_size=batch_size)

    def describe(self) -> Description:
        """Return the file's name, digest and number of classes."""
        suspect = self._suspect_id(name=self._name, sha256=self._sha256)
        return Description(suspect=suspect, extra={"model": printable(type(self._model).__name__)})

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        rows = encode_tensor(inputs, self._encoding).reshape(len(inputs), -1)
        try:
            # Columns of probabilities are labels only where the classes are the numbers from 0 on.
            if hasattr(self._model, "predict_proba") and np.array_equal(self._classes, np.arange(len(self._classes))):
                return np.asarray(self._model.predict_proba(rows))
            return np.asarray(self._model.predict(rows))
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise SuspectAnswerError(f"{self._name}: the model does not take these inputs") from error
