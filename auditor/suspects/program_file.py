"""Suspects that are programs of PyTorch: TorchScript (``.ts``, ``.pt``) and ``torch.export`` (``.pt2``).

Opening such a file runs what its author wrote, so it takes the examiner's word (``--allow-python``). TorchScript is
interpreted by PyTorch, without Python, but its operators may read and write files. The loader of ``.pt2`` unpickles
some parts and evaluates others as text; files with pickled objects, with expressions beyond arithmetic or with guards
in Python are refused even then. That closes the known ways, and is no promise that there are no others.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.errors import MissingPartError, SuspectAnswerError, SuspectLoadError
from auditor.evidence.reading import Reading
from auditor.records import Inputs
from auditor.suspects.base import (
    LOCAL_BATCH,
    MAX_MODEL_BYTES,
    Description,
    Encoding,
    LocalSuspect,
    encode_tensor,
    read_model_file,
)

if TYPE_CHECKING:
    import torch

SUFFIXES = (".pt2", ".ts", ".pt")
MAX_CONFIG_BYTES = 64 * 1024 * 1024
TENSOR_FILE = re.compile(r"(weight|tensor)_\d+")
SYMBOLIC = re.compile(r"[A-Za-z0-9_+\-*/(), .<>=']{0,400}")
SYMBOL_NAME = re.compile(
    r"Symbol|positive|integer|True|False|[bsu]\d+|Max|Min|Mod|FloorDiv|CeilDiv|Pow|Eq|Ne|Ge|Gt|Le|Lt|TruncToInt|ToFloat"
)


class ProgramSuspect(LocalSuspect):
    """A TorchScript or ``torch.export`` file that maps float images to one score per label.

    Args:
        path: the file; its ending says which of the two it is.
        allowed: the examiner's word that the file's program may run on this machine.
        encoding: how pixels become inputs; None divides by 255.
        reading: maps the model's own labels to those of the task.
        batch_size: most inputs per question.

    Raises:
        SuspectLoadError: not allowed, not such a file, or one that would unpickle objects.
        MissingPartError: PyTorch is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        allowed: bool,
        encoding: Encoding | None = None,
        reading: Reading | None = None,
        batch_size: int = LOCAL_BATCH,
    ) -> None:
        super().__init__(reading=reading, batch_size=batch_size)
        if not allowed:
            raise SuspectLoadError(
                f"{path.name}: opening it runs its author's program; --allow-python permits that, and a safetensors or "
                "ONNX file does not need it"
            )
        try:
            import torch
        except ImportError as error:
            raise MissingPartError("opening a model file needs PyTorch; install the package torch") from error
        data = read_model_file(path)
        try:
            self._run = _exported(data, path.name) if path.suffix == ".pt2" else _scripted(data)
        except SuspectLoadError:
            raise
        except Exception as error:
            raise SuspectLoadError(f"{path.name}: not a program that PyTorch {torch.__version__} opens") from error
        self._name, self._sha256 = path.name, sha256_hex(data)
        self._encoding = encoding or Encoding(divide=255.0)

    def describe(self) -> Description:
        """Return the file's name and digest."""
        return Description(suspect=self._suspect_id(name=self._name, sha256=self._sha256))

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        import torch

        tensor = torch.from_numpy(encode_tensor(inputs, self._encoding).astype(np.float32))
        try:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                outputs = self._run(tensor)
        except Exception as error:
            raise SuspectAnswerError(f"{self._name}: the model does not take these inputs") from error
        if not isinstance(outputs, torch.Tensor):
            raise SuspectAnswerError(f"{self._name}: the model does not give one tensor")
        return np.asarray(outputs.detach().cpu().numpy())


def _scripted(data: bytes) -> "Callable[[torch.Tensor], object]":
    import torch

    with warnings.catch_warnings():
        # PyTorch asks for torch.export instead; the examiner takes the file as it comes.
        warnings.simplefilter("ignore", DeprecationWarning)
        module: torch.nn.Module = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        return module.eval()


def _exported(data: bytes, name: str) -> "Callable[[torch.Tensor], object]":
    import torch

    problem = exported_problem(data)
    if problem:
        raise SuspectLoadError(f"{name}: {problem}")
    return torch.export.load(io.BytesIO(data)).module()


def exported_problem(data: bytes) -> str:
    """Return why a ``.pt2`` file is not opened, or empty text."""
    import torch

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {item.filename: item for item in archive.infolist()}
            if sum(item.file_size for item in entries.values()) > MAX_MODEL_BYTES:
                return f"unpacks to more than {MAX_MODEL_BYTES} bytes"
            files = {path.partition("/")[2]: archive.read(item) for path, item in entries.items()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        return f"not a torch.export archive ({type(error).__name__})"
    if files.get("archive_format") != b"pt2":
        return "not a torch.export archive of the current form"
    for path, content in files.items():
        if path.endswith((".json",)) and len(content) <= MAX_CONFIG_BYTES:
            try:
                complaint = _json_problem(json.loads(content))
            except (ValueError, RecursionError):
                return "holds a description that is no JSON"
            if complaint:
                return complaint
        elif path.endswith(".json"):
            return "holds a description that is too large"
        elif path.startswith("data/sample_inputs/"):
            try:
                torch.load(io.BytesIO(content), weights_only=True)
            except Exception:  # noqa: BLE001
                # Its loader would fall back to unpickling whatever this is.
                return "holds sample inputs that are more than tensors"
        elif "custom_obj" in path or path.startswith("data/extra/") or path.endswith((".so", ".py", ".pkl")):
            return "holds objects or code beside its graph"
    return ""


def _json_problem(value: object) -> str:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            # The loader tells tensors from objects by these names; what it does not know it refuses itself.
            path = item.get("path_name", "weight_0")
            if item.get("use_pickle", False) is not False or not (
                isinstance(path, str) and TENSOR_FILE.fullmatch(path)
            ):
                return "holds pickled objects"
            if item.get("guards_code"):
                return "holds guards written in Python"
            expression = item.get("expr_str")
            if isinstance(expression, str) and not _is_symbolic(expression):
                return "holds an expression that is more than arithmetic"
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return ""


def _is_symbolic(expression: str) -> bool:
    # The loader evaluates this text; numbers, operators and the names of sizes are all it may hold.
    names = re.findall(r"[A-Za-z_]\w*", expression)
    # Towers of powers would keep the loader busy for ever.
    plain = SYMBOLIC.fullmatch(expression) is not None and "**" not in expression
    return plain and all(SYMBOL_NAME.fullmatch(name) for name in names)
