"""A suspect that is a model file: safetensors weights with a JSON description, never a pickle.

A folder may also hold several such models and what happens around them; see :mod:`auditor.wrapped`.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.errors import DISTRIBUTION, MissingPartError, SuspectAnswerError, SuspectLoadError
from auditor.evidence.reading import Reading
from auditor.models import DESCRIPTION_NAME, WEIGHTS_NAME, predict
from auditor.records import Inputs
from auditor.suspects.base import LOCAL_BATCH, Description, LocalSuspect
from auditor.wrapped import WRAPPED_NAME, WrappedModel, load

ACCEPTED = f"a folder with {WEIGHTS_NAME} and {DESCRIPTION_NAME}, or the .safetensors file with its .json beside it"


class TorchFileSuspect(LocalSuspect):
    """A model file that is opened and run on this machine.

    Args:
        path: the folder, or the ``.safetensors`` file, with the description beside it.
        reading: maps the model's own labels to those of the task.
        batch_size: most inputs per question.

    Raises:
        SuspectLoadError: not such a model.
        MissingPartError: PyTorch is not installed.
    """

    def __init__(self, path: Path, *, reading: Reading | None = None, batch_size: int = LOCAL_BATCH) -> None:
        super().__init__(reading=reading, batch_size=batch_size)
        if not path.is_dir() and path.suffix != ".safetensors":
            # Pickled formats run code of whoever wrote them; looking inside would be too late.
            raise SuspectLoadError(f"{path.name}: not a model this program opens; it takes {ACCEPTED}")
        try:
            loaded = load(path)
        except ImportError as error:
            raise MissingPartError(
                f"opening a model file needs PyTorch: pip install '{DISTRIBUTION}[train]'"
            ) from error
        self._network = loaded.network
        self._description = loaded.description
        weights_name = WRAPPED_NAME if isinstance(loaded, WrappedModel) else WEIGHTS_NAME
        self._name = (path / weights_name if path.is_dir() else path).name

    def describe(self) -> Description:
        """Return the file's name, digest, input shape and number of labels."""
        # Loading compared this digest, or those it stands for, with the bytes that became the network.
        suspect = self._suspect_id(name=self._name, sha256=self._description.weights_sha256)
        return Description(
            suspect=suspect,
            input_shape=self._description.input_shape,
            n_labels=self._description.n_outputs,
            extra={"answers": "scores", "architecture": self._description.architecture},
        )

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        if inputs.shape[1:] != self._description.input_shape:
            raise SuspectAnswerError(f"{self._name}: the model takes inputs of another shape")
        return predict(self._network, inputs)
