"""A suspect that is a Python function; importing it runs its module, which takes the examiner's word."""

import importlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.errors import SuspectAnswerError, SuspectLoadError, UsageError
from auditor.evidence.reading import Reading
from auditor.records import Inputs
from auditor.suspects.base import LOCAL_BATCH, Description, LocalSuspect

PREFIX = "python:"


class FunctionSuspect(LocalSuspect):
    """A function that maps uint8 inputs, shape (n, channels, height, width), to labels (n,) or scores (n, labels).

    Args:
        address: ``python:module:function``; the module is found as ``import`` finds it.
        allowed: the examiner's word that the module's code may run on this machine.
        reading: maps the function's own labels to those of the task.
        batch_size: most inputs per question.

    Raises:
        UsageError: the address is none.
        SuspectLoadError: not allowed, or the module or function is not there.
    """

    def __init__(
        self, address: str, *, allowed: bool, reading: Reading | None = None, batch_size: int = LOCAL_BATCH
    ) -> None:
        super().__init__(reading=reading, batch_size=batch_size)
        module_name, _, name = address.removeprefix(PREFIX).partition(":")
        if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
            raise UsageError("a Python suspect is written python:module:function")
        if not allowed:
            raise SuspectLoadError(f"{address}: importing it runs its code; --allow-python permits that")
        try:
            module = importlib.import_module(module_name)
            function = getattr(module, name)
        # An import runs foreign code, which may raise anything.
        except Exception as error:
            raise SuspectLoadError(f"{address}: cannot be imported ({type(error).__name__})") from error
        if not callable(function):
            raise SuspectLoadError(f"{address}: not a function")
        file = getattr(module, "__file__", None)
        self._sha256 = sha256_hex(Path(file).read_bytes()) if file else ""
        self._function, self._address = function, address

    def describe(self) -> Description:
        """Return the address and the digest of the module's file."""
        return Description(suspect=self._suspect_id(name=self._address, sha256=self._sha256))

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        try:
            return np.asarray(self._function(inputs.copy()))
        except Exception as error:
            raise SuspectAnswerError(f"{self._address}: failed on a batch ({type(error).__name__})") from error
