"""The inputs in the body of a request to the service: believed only when shape, type and range are right."""

import base64

import numpy as np
from starlette.exceptions import HTTPException

from auditor.canonical import Fields, JsonValue, parse_object
from auditor.errors import MalformedError
from auditor.records import Inputs

MAX_BODY_BYTES = 64 * 1024 * 1024


def parse_inputs(body: bytes, *, input_shape: tuple[int, int, int], max_batch: int) -> Inputs:
    """Return the uint8 inputs, shape (n, channels, height, width), of a request body.

    Raises:
        HTTPException: with status and message; nothing else is raised for any bytes.
    """
    try:
        fields = Fields(parse_object(body, what="request"), what="request")
        inputs = fields.raw("inputs")
        fields.finish()
        if isinstance(inputs, dict):
            return _from_base64(Fields(inputs, what="inputs"), input_shape=input_shape, max_batch=max_batch)
    except MalformedError as error:
        raise HTTPException(400, str(error)) from error
    return _from_lists(inputs, input_shape=input_shape, max_batch=max_batch)


def _from_base64(fields: Fields, *, input_shape: tuple[int, int, int], max_batch: int) -> Inputs:
    shape = fields.items("shape", max_items=8)
    dtype = fields.text("dtype", max_length=32)
    data_b64 = fields.text("data_b64", max_length=MAX_BODY_BYTES * 2)
    fields.finish()
    if dtype != "uint8":
        raise HTTPException(422, "inputs must have dtype uint8")
    n = shape[0] if shape else None
    # JSON's true equals 1 in Python, hence the look at the types.
    if not isinstance(n, int) or shape[1:] != list(input_shape) or {type(side) for side in shape} != {int}:
        raise _wrong_shape(input_shape)
    _check_batch(n, max_batch=max_batch)
    try:
        data = base64.b64decode(data_b64, validate=True)
    except ValueError as error:
        raise HTTPException(422, "data_b64 is not base64") from error
    if len(data) != n * int(np.prod(input_shape)):
        raise HTTPException(422, f"data_b64 holds {len(data)} bytes, which is not what its shape needs")
    return np.frombuffer(data, dtype=np.uint8).reshape(n, *input_shape)


def _from_lists(value: JsonValue, *, input_shape: tuple[int, int, int], max_batch: int) -> Inputs:
    if not isinstance(value, list):
        raise HTTPException(422, "inputs must be nested lists, or an object with shape, dtype and data_b64")
    _check_batch(len(value), max_batch=max_batch)
    rows: list[JsonValue] = value
    for side in input_shape:
        if not all(isinstance(item, list) and len(item) == side for item in rows):
            raise _wrong_shape(input_shape)
        rows = [inner for item in rows if isinstance(item, list) for inner in item]
    try:
        # bytes() itself refuses integers outside 0-255, but takes true for 1.
        data = bytes(item if type(item) is int else -1 for item in rows)
    except ValueError as error:
        raise HTTPException(422, "inputs must be integers in 0-255") from error
    return np.frombuffer(data, dtype=np.uint8).reshape(len(value), *input_shape)


def _check_batch(n: int, *, max_batch: int) -> None:
    if n < 1:
        raise HTTPException(422, "a batch holds at least one input")
    if n > max_batch:
        raise HTTPException(413, f"the batch holds {n} inputs; at most {max_batch} are accepted")


def _wrong_shape(input_shape: tuple[int, int, int]) -> HTTPException:
    return HTTPException(422, f"inputs must have shape [n, {', '.join(str(side) for side in input_shape)}]")
