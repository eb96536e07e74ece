"""The part of a screen that needs nothing but the seal and what was asked, so that ``check`` repeats it offline.

``auditor screen`` measures more, before anybody is asked: with models, ordinary images and further detectors.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from auditor.analysis.capacity import capacity
from auditor.canonical import JsonValue, decimal_string
from auditor.evidence.seal import Seal
from auditor.records import Inputs, Reply, SampleKind
from auditor.stats.separation import Scores, area_under_curve, nearest_distances, squared_distances

MIN_CONTROLS = 3
CONFIDENCE = 0.95


def screen_section(seal: Seal, *, asked: Sequence[Reply], data: Mapping[int, bytes]) -> dict[str, JsonValue]:
    """Return capacity of the sealed draw, and how well the asked keys can be told from the asked controls.

    The detector is the distance to the nearest control, each control against the others; distances are exact, so that
    every machine finds the same area.

    Args:
        seal: the opened seal.
        asked: every issued probe.
        data: uint8 values of at least every asked sample, by index.
    """
    found = capacity(seal.protocol, seal.spec, seal.generator)
    return {
        "capacity": {
            "bits": decimal_string(round(found.bits, 6)),
            "drawn": found.drawn,
            "best_log10_p": decimal_string(round(found.best_log10_p, 6)),
            "reaches_level": found.reaches_level,
        },
        "detectability": _detectability(seal, asked, data),
    }


def _detectability(seal: Seal, asked: Sequence[Reply], data: Mapping[int, bytes]) -> JsonValue:
    keys, controls = (_inputs(seal, asked, data, kind) for kind in (SampleKind.KEY, SampleKind.CONTROL))
    if not len(keys) or len(controls) < MIN_CONTROLS:
        return None
    area = area_under_curve(nearest_distances(keys, controls), _among(controls), confidence=CONFIDENCE)
    return {
        "detector": "distance to the nearest control",
        "area": decimal_string(area.area),
        "keys": area.first,
        "controls": area.second,
        "interval": {
            "low": decimal_string(round(area.exact.low, 9)),
            "high": decimal_string(round(area.exact.high, 9)),
            "confidence": decimal_string(CONFIDENCE),
            "method": "finite-sample bound for U-statistics",
        },
    }


def _among(controls: Inputs) -> Scores:
    squared = squared_distances(controls, controls)
    np.fill_diagonal(squared, np.inf)
    return np.asarray(np.sqrt(squared.min(axis=1)))


def _inputs(seal: Seal, asked: Sequence[Reply], data: Mapping[int, bytes], kind: SampleKind) -> Inputs:
    rows = sorted({reply.probe.index for reply in asked if reply.probe.kind is kind} & set(data))
    shape = (len(rows), *seal.spec.shape)
    return np.frombuffer(b"".join(data[row] for row in rows), dtype=np.uint8).reshape(shape)
