"""Reference architectures, one file per family, and model files that are safe to open: JSON plus safetensors.

A file from a suspect is hostile input. The description is read completely and within limits, the weights' digest
is compared, and the tensors are compared with the architecture by name, shape and type before anything is allocated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_object, sha256_hex
from auditor.errors import EvidenceError, SuspectLoadError, UsageError
from auditor.models import plain, resnet
from auditor.models.plain import MLP as MLP
from auditor.models.plain import SMALL_CNN as SMALL_CNN
from auditor.records import Inputs

if TYPE_CHECKING:
    import torch

SCHEMA = "mlaudit.model/1"
WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"
MAX_WEIGHTS_BYTES = 1 << 30
MAX_DESCRIPTION_BYTES = 1 << 20
MAX_SIDE = 1024
MAX_OUTPUTS = 100_000
MAX_OPTION = 1 << 16
PREDICT_BATCH = 512

ARCHITECTURES = (*plain.NAMES, *resnet.NAMES)
ZERO_ALLOWED = ("pools", "mean")
"""Beginnings of the names of options that may be 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """Everything but the weights."""

    architecture: str
    options: Mapping[str, int]
    """Whole-number settings of the architecture; see :func:`default_options`."""
    input_shape: tuple[int, int, int]
    """(channels, height, width)."""
    classes: tuple[str, ...]
    """One name per output; a marked model names its additional outputs too."""
    n_outputs: int
    weights_sha256: str = ""
    """Digest of the weights file; empty before it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A network together with its description."""

    network: "torch.nn.Module"
    description: ModelDescription


def default_options(architecture: str, *, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the settings of an architecture that suit inputs of the given shape.

    Raises:
        UsageError: the architecture is not known.
    """
    if architecture in plain.NAMES:
        return plain.default_options(architecture, input_shape=input_shape)
    if architecture in resnet.NAMES:
        return resnet.default_options(input_shape=input_shape)
    raise UsageError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")


def width_options(architecture: str, width: int) -> dict[str, int]:
    """Return the settings that make the first block of an architecture ``width`` channels wide.

    Raises:
        UsageError: the architecture is not known.
    """
    if architecture == SMALL_CNN:
        return {"width1": width, "width2": 2 * width, "width3": 4 * width}
    if architecture == MLP:
        return {"hidden": width}
    if architecture in resnet.NAMES:
        return {"width": width}
    raise UsageError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")


def describe(
    architecture: str,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    options: Mapping[str, int] | None = None,
) -> ModelDescription:
    """Return the description of a fresh model with one output per class name.

    Raises:
        UsageError: the architecture is not known, has no such option, or does not fit the inputs.
    """
    settings = default_options(architecture, input_shape=input_shape)
    unknown = set(options or {}) - set(settings)
    if unknown:
        raise UsageError(f"architecture {architecture!r} has no option {sorted(unknown)[0]!r}")
    settings |= options or {}
    if architecture in plain.NAMES:
        problem = plain.fit_problem(architecture, input_shape=input_shape, options=settings)
        if problem:
            raise UsageError(f"architecture {architecture!r} does not fit the data: {problem}")
    return ModelDescription(
        architecture=architecture,
        options=settings,
        input_shape=input_shape,
        classes=classes,
        n_outputs=len(classes),
    )


def build(description: ModelDescription, *, seed: int) -> "torch.nn.Module":
    """Return a network with weights drawn from ``seed``; the global random state is left as it was.

    The classification head is drawn last, so that networks which differ in the number of outputs only share
    every other initial weight.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _assemble(description)


def predict(network: "torch.nn.Module", inputs: Inputs) -> npt.NDArray[np.float32]:
    """Return softmax probabilities, shape (n, n_outputs), float32.

    Args:
        network: any module that maps float images in [0, 1] to logits; it is put into evaluation mode.
        inputs: uint8, shape (n, channels, height, width); scaled by 1/255 here and nowhere else.
    """
    import torch

    network.eval()
    device = next(network.parameters()).device
    chunks = []
    with torch.inference_mode():
        for start in range(0, len(inputs), PREDICT_BATCH):
            # astype copies: torch warns about arrays that are not writable, and sealed ones never are.
            pixels = inputs[start : start + PREDICT_BATCH].astype(np.float32)
            batch = torch.from_numpy(pixels).to(device) / 255.0
            chunks.append(torch.softmax(network(batch), dim=1).cpu().numpy())
    if not chunks:
        raise ValueError("no inputs")
    return np.concatenate(chunks).astype(np.float32, copy=False)


def labels_of(network: "torch.nn.Module", inputs: Inputs) -> npt.NDArray[np.int64]:
    """Return the top-1 label of every input."""
    return np.asarray(np.argmax(predict(network, inputs), axis=1), dtype=np.int64)


def save_model(folder: Path, network: "torch.nn.Module", description: ModelDescription) -> ModelDescription:
    """Write ``model.safetensors`` and ``model.json`` into ``folder`` and return the description with its digest."""
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    weights = save(state)
    written = replace(description, weights_sha256=sha256_hex(weights))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_NAME).write_bytes(weights)
    (folder / DESCRIPTION_NAME).write_bytes(canonical_bytes(_description_object(written)) + b"\n")
    return written


def load_model(path: Path) -> LoadedModel:
    """Return the model of a folder, or of a ``.safetensors`` file with its description beside it.

    Raises:
        SuspectLoadError: a file is missing, too large, not what it says it is, or does not fit its description.
    """
    weights_path = path / WEIGHTS_NAME if path.is_dir() else path
    if weights_path.suffix != ".safetensors":
        raise SuspectLoadError(f"{weights_path.name}: only .safetensors model files are opened")
    description_path = weights_path.with_suffix(".json")
    try:
        description = read_description(_read_limited(description_path, limit=MAX_DESCRIPTION_BYTES))
    except EvidenceError as error:
        raise SuspectLoadError(str(error)) from error
    weights = _read_limited(weights_path, limit=MAX_WEIGHTS_BYTES)
    if sha256_hex(weights) != description.weights_sha256:
        raise SuspectLoadError(f"{weights_path.name}: its SHA-256 differs from the one in {description_path.name}")
    return LoadedModel(network=_with_weights(description, weights, what=weights_path.name), description=description)


def read_description(data: bytes) -> ModelDescription:
    """Return the description in the bytes of a ``model.json``.

    Raises:
        MalformedError: not such a description, or one outside the accepted limits.
        SuspectLoadError: an unknown architecture, or options it does not have.
    """
    fields = Fields(parse_object(data, what=DESCRIPTION_NAME, max_bytes=MAX_DESCRIPTION_BYTES), what=DESCRIPTION_NAME)
    if fields.text("schema") != SCHEMA:
        raise SuspectLoadError(f"{DESCRIPTION_NAME}: unknown schema")
    architecture = fields.text("architecture", max_length=64)
    shape = fields.items("input_shape", max_items=3)
    sides = [side for side in shape if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MAX_SIDE]
    if len(shape) != 3 or len(sides) != 3:
        raise SuspectLoadError(f"{DESCRIPTION_NAME}: input_shape must be three integers in [1, {MAX_SIDE}]")
    input_shape = (sides[0], sides[1], sides[2])
    options = fields.object("options")
    try:
        settings = default_options(architecture, input_shape=input_shape)
    except UsageError as error:
        raise SuspectLoadError(f"{DESCRIPTION_NAME}: unknown architecture") from error
    lows = {name: 0 if name.startswith(ZERO_ALLOWED) else 1 for name in settings}
    chosen = {name: options.integer(name, low=low, high=MAX_OPTION) for name, low in lows.items()}
    options.finish()
    description = ModelDescription(
        architecture=architecture,
        options=chosen,
        input_shape=input_shape,
        classes=fields.texts("classes", max_items=MAX_OUTPUTS),
        n_outputs=fields.integer("n_outputs", low=2, high=MAX_OUTPUTS),
        weights_sha256=fields.hex("weights_sha256", n_bytes=32),
    )
    fields.finish()
    if len(description.classes) != description.n_outputs:
        raise SuspectLoadError(f"{DESCRIPTION_NAME}: {len(description.classes)} names, {description.n_outputs} outputs")
    return description


def _description_object(description: ModelDescription) -> dict[str, JsonValue]:
    return {
        "schema": SCHEMA,
        "architecture": description.architecture,
        "options": dict(description.options),
        "input_shape": list(description.input_shape),
        "classes": list(description.classes),
        "n_outputs": description.n_outputs,
        "weights_sha256": description.weights_sha256,
    }


def _assemble(description: ModelDescription) -> "torch.nn.Module":
    family = plain.assemble if description.architecture in plain.NAMES else resnet.assemble
    return family(
        description.architecture,
        input_shape=description.input_shape,
        options=description.options,
        n_outputs=description.n_outputs,
    )


def _with_weights(description: ModelDescription, weights: bytes, *, what: str) -> "torch.nn.Module":
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # On the meta device the architecture costs no memory, however large its description says it is.
        with torch.device("meta"):
            network = _assemble(description)
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        raise SuspectLoadError(f"{DESCRIPTION_NAME}: these options make no network") from error
    try:
        state = load(weights)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError, TypeError) as error:
        raise SuspectLoadError(f"{what}: not a safetensors file") from error
    expected = {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}
    if {name: (value.shape, value.dtype) for name, value in state.items()} != expected:
        raise SuspectLoadError(f"{what}: its tensors do not fit the architecture in {DESCRIPTION_NAME}")
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise SuspectLoadError(f"{what}: holds values that are not finite numbers")
    network.load_state_dict(state, assign=True)
    return network.eval()


def _read_limited(path: Path, *, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise SuspectLoadError(f"{path.name}: larger than {limit} bytes")
        return path.read_bytes()
    except OSError as error:
        raise SuspectLoadError(f"{path.name}: cannot be read ({type(error).__name__})") from error
