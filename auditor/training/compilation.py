"""Whether ``torch.compile`` can work here, asked before anything is trained.

Compiling is cold at first: on a CPU some twenty seconds of one core for each of the two or three forms in which a
small network is run, minutes for a deep one, and several times that on a busy machine. The results are kept on disk.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from auditor.errors import MissingPartError

if TYPE_CHECKING:
    import torch

_COMPILERS = ("torch._dynamo", "torch._inductor")
"""Packages of torch in which a failed compilation is raised."""


def require_compiler(device: "torch.device") -> None:
    """Refuse to compile for a device where the tools that torch compiles with are absent.

    Raises:
        MissingPartError: there is no C++ compiler, or on a GPU no Triton.
    """
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise MissingPartError("--compile on a GPU needs the package triton: pip install triton")
        return
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise MissingPartError(f"--compile needs a C++ compiler, and {name} is not here: install g++ or set CXX")


@contextmanager
def compilation_errors(title: str) -> Iterator[None]:
    """Turn a failed compilation into one line; any other error passes.

    Raises:
        MissingPartError: torch could not compile the network.
    """
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(_COMPILERS):
            raise
        raise MissingPartError(
            f"{title}: torch could not compile the network ({type(error).__name__}); --compile needs a working C++ "
            "compiler with the headers of Python, without it leave the option out"
        ) from error
