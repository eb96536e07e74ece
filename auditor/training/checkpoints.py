"""Training runs that survive a kill: their whole state on disk, every so many steps."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.canonical import sha256_hex
from auditor.errors import UsageError

if TYPE_CHECKING:
    import torch

SUFFIX = ".state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where the states of the training runs of one piece of work are kept."""

    folder: Path
    every_steps: int
    identity: str = ""
    """What must be the same for a run to go on: the caller's words for everything that training data cannot show."""

    def __post_init__(self) -> None:
        if self.every_steps < 1:
            raise UsageError("a checkpoint is written every step or more seldom")

    def path(self, title: str) -> Path:
        """Return the file of the run called ``title``."""
        return self.folder / f"{sha256_hex(title.encode())[:16]}{SUFFIX}"

    def save(self, title: str, state: Mapping[str, Any]) -> None:
        """Write a state; a kill leaves either the last one or this one, never half of it."""
        import torch

        path = self.path(title)
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def load(self, title: str, *, identity: str, device: "torch.device") -> dict[str, Any] | None:
        """Return the last state of the run called ``title``, or None.

        Raises:
            UsageError: it belongs to another run, or cannot be read.
        """
        import pickle

        import torch

        path = self.path(title)
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise UsageError(f"{path.name}: not a checkpoint ({type(error).__name__}); delete it") from error
        if not isinstance(state, dict) or state.get("identity") != identity:
            raise UsageError(f"{path.name}: the checkpoint belongs to a run with other data or settings")
        return state


def stream_state(generator: np.random.Generator) -> str:
    """Return the state of a numpy generator as JSON."""
    return json.dumps(generator.bit_generator.state)


def restore_stream(generator: np.random.Generator, state: str) -> None:
    """Put a numpy generator back into a state."""
    generator.bit_generator.state = json.loads(state)
