"""A suspect that is an ONNX file, run by ONNX Runtime on CUDA where it can and on the CPU otherwise.

The file is a graph of standard operators: no code of the file's author runs, custom operators and tensors kept in
other files are refused.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.errors import MissingPartError, SuspectAnswerError, SuspectLoadError
from auditor.evidence.reading import Reading
from auditor.records import Inputs
from auditor.suspects.base import LOCAL_BATCH, Description, Encoding, LocalSuspect, encode_tensor, read_model_file

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
SILENT = 4


class OnnxSuspect(LocalSuspect):
    """An ONNX file with one image input and an output of scores or labels.

    Args:
        path: the ``.onnx`` file.
        encoding: how pixels become inputs; None divides by 255 where the model takes floats, and leaves bytes as they
            are where it takes bytes.
        reading: maps the model's own labels to those of the task.
        batch_size: most inputs per question.

    Raises:
        SuspectLoadError: not such a model.
        MissingPartError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoding: Encoding | None = None,
        reading: Reading | None = None,
        batch_size: int = LOCAL_BATCH,
    ) -> None:
        super().__init__(reading=reading, batch_size=batch_size)
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPartError(
                "opening an ONNX file needs ONNX Runtime; install the extra [onnx] (pip install onnxruntime)"
            ) from error
        data = read_model_file(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        # The runtime's exceptions have no base of their own.
        except Exception as error:
            raise SuspectLoadError(f"{path.name}: not an ONNX model that ONNX Runtime opens") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(double)", "tensor(uint8)"):
            raise SuspectLoadError(f"{path.name}: a model with one input of floats or bytes is needed")
        self._name, self._sha256, self._input = path.name, sha256_hex(data), inputs[0]
        takes_bytes = self._input.type == "tensor(uint8)"
        self._encoding = encoding or Encoding(divide=1.0 if takes_bytes else 255.0)
        self._dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}[
            self._input.type
        ]

    def describe(self) -> Description:
        """Return the file's name, digest and, where the graph states it, input shape."""
        sides = self._input.shape[1:]
        # A flattened or transposed input says nothing about channels, height and width.
        stated = len(sides) == 3 and all(isinstance(side, int) and side > 0 for side in sides)
        return Description(
            suspect=self._suspect_id(name=self._name, sha256=self._sha256),
            input_shape=tuple(sides) if stated and self._encoding.layout == "chw" else None,
            extra={"runtime": str(self._session.get_providers()[0])},
        )

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        tensor = encode_tensor(inputs, self._encoding).astype(self._dtype)
        if len(self._input.shape) == 2:
            tensor = tensor.reshape(len(tensor), -1)
        try:
            outputs = self._session.run(None, {self._input.name: tensor})
        except Exception as error:
            raise SuspectAnswerError(f"{self._name}: the model does not take these inputs") from error
        arrays = [np.asarray(output) for output in outputs]
        for array in arrays:
            if array.ndim == 2 and array.shape[1] > 1 and np.issubdtype(array.dtype, np.floating):
                return array
        for array in arrays:
            if array.size == len(inputs) and array.dtype.kind in "iuO":
                return array.reshape(-1)
        raise SuspectAnswerError(f"{self._name}: the model has no output of scores or labels")
