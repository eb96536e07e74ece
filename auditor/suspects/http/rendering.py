"""From a batch of pixels to the bytes of a request, as a profile describes it."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.errors import SuspectAnswerError
from auditor.records import Inputs
from auditor.suspects.base import Encoding, ImageFormat, Layout, arranged, encode_tensor
from auditor.suspects.http.profile import Body, Profile
from auditor.suspects.http.templates import JsonList, filled


def render(profile: Profile, inputs: Inputs, described: Mapping[str, str]) -> tuple[bytes, str]:
    """Return body and content type of the request for a batch.

    Args:
        profile: how the service is spoken to.
        inputs: uint8, shape (n, channels, height, width).
        described: what the service's own description says, for the template.

    Raises:
        SuspectAnswerError: the profile does not suit these inputs.
    """
    question = profile.question
    if question.body is Body.TEMPLATE:
        return _filled(profile, inputs, described), question.content_type
    image = encode_image(inputs[0], profile.encoding)
    kind = f"image/{profile.encoding.image.value}"
    if question.body is Body.IMAGE:
        return image, kind
    return _form(profile, image, kind)


def encode_image(pixels: Inputs, encoding: Encoding) -> bytes:
    """Return one input, uint8 of shape (channels, height, width), as an image file.

    Raises:
        SuspectAnswerError: the number of channels is neither 1 nor 3.
    """
    from PIL import Image

    if len(pixels) not in (1, 3):
        raise SuspectAnswerError(f"an image has 1 or 3 channels, these inputs have {len(pixels)}")
    array = np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    picture = Image.fromarray(array)
    if encoding.image is ImageFormat.PNG:
        picture.save(file, format="PNG")
    else:
        picture.save(file, format="JPEG", quality=encoding.jpeg_quality)
    return file.getvalue()


def _filled(profile: Profile, inputs: Inputs, described: Mapping[str, str]) -> bytes:
    shape = list(arranged(inputs, profile.encoding.layout).shape)
    values: dict[str, object] = {"n": len(inputs), "shape": _json(shape), "described": described}
    text = profile.question.template
    # What is not used is not made: nested lists of a large batch take longer than everything else.
    if "tensor" in text:
        values["tensor"] = JsonList(_nested(row) for row in _numbers(inputs, profile.encoding))
    if "flat" in text:
        values["flat"] = _nested(_numbers(inputs, profile.encoding).reshape(-1))
    if "data_b64" in text:
        tensor = encode_tensor(inputs, profile.encoding)
        values["data_b64"] = _json(base64.b64encode(tensor.tobytes()).decode("ascii"))
    if "image" in text:
        encoded = [base64.b64encode(encode_image(each, profile.encoding)).decode("ascii") for each in inputs]
        values["images"], values["image"] = JsonList(map(_json, encoded)), _json(encoded[0])
    return filled(text, values, name=profile.name).encode("utf-8")


def check_json(profile: Profile, body: bytes) -> None:
    """Refuse a filled template that was to be JSON and is not.

    Raises:
        SuspectAnswerError: it is not.
    """
    if profile.question.body is Body.TEMPLATE and profile.question.content_type == "application/json":
        try:
            json.loads(body)
        except ValueError as error:
            raise SuspectAnswerError(f"profile {profile.name}: the filled template is not JSON") from error


def _numbers(inputs: Inputs, encoding: Encoding) -> npt.NDArray[np.object_]:
    """Return the batch as the service takes it, each value already written as a JSON number."""
    n_channels = inputs.shape[1]
    written = _written(encoding, n_channels)[np.arange(n_channels).reshape(-1, 1, 1), inputs]
    return arranged(written, encoding.layout)


@lru_cache(maxsize=16)
def _written(encoding: Encoding, n_channels: int) -> npt.NDArray[np.object_]:
    """Return how each of the 256 grey levels of each channel is written, shape (channels, 256).

    Raises:
        SuspectAnswerError: the scaling leaves no number, or does not suit so many channels.
    """
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1), (256, n_channels, 1, 1))
    with np.errstate(all="ignore"):
        values = encode_tensor(levels, replace(encoding, layout=Layout.CHANNELS_FIRST)).reshape(256, n_channels)
    if not np.all(np.isfinite(values)):
        raise SuspectAnswerError("the profile's input scaling gives values that are not finite")
    # Nine digits give back every float32; all of a double's would only be longer.
    written = [[_json(float(f"{v:.9g}") if values.dtype == np.float32 else int(v)) for v in row] for row in values.T]
    return np.array(written, dtype=np.object_)


def _nested(written: npt.NDArray[np.object_]) -> str:
    """Return written numbers as nested lists in JSON."""
    pieces: list[str] = [""] * (2 * written.size)
    pieces[::2], pieces[1::2] = _brackets(written.shape), written.reshape(-1).tolist()
    return "".join(pieces) + "]" * written.ndim


@lru_cache(maxsize=8)
def _brackets(shape: tuple[int, ...]) -> list[str]:
    """Return what stands before each number of nested lists."""
    n_ended = np.zeros(prod(shape), dtype=np.intp)
    for axis in range(1, len(shape)):
        n_ended[:: prod(shape[axis:])] += 1
    between = ["]" * n + "," + "[" * n for n in range(len(shape))]
    before = [between[n] for n in n_ended.tolist()]
    before[0] = "[" * len(shape)
    return before


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _form(profile: Profile, image: bytes, kind: str) -> tuple[bytes, str]:
    from urllib3.filepost import encode_multipart_formdata

    extension = profile.encoding.image.value
    fields: list[tuple[str, str | bytes | tuple[str, bytes, str]]] = list(profile.question.form.items())
    fields.append((profile.question.file_field, (f"image.{extension}", image, kind)))
    # A boundary drawn at random would give the same question other bytes each time.
    body, content_type = encode_multipart_formdata(fields, boundary=f"auditor-{sha256_hex(image)[:32]}")
    return body, content_type
