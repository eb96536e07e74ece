"""A profile in which the labels' meaning is fixed, as a service's answers to ordinary inputs show it."""

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from auditor.errors import UsageError
from auditor.evidence.calibration import OwnLabels
from auditor.records import Inputs
from auditor.stats.label_map import FittedMap, fit_label_map
from auditor.suspects.http.adapter import HttpSuspect
from auditor.suspects.http.addresses import check_proxy
from auditor.suspects.http.profile import Profile, load, source


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A label map fitted on ordinary answers, and the profile that fixes it."""

    fitted: FittedMap
    profile: bytes
    """The profile's file with the map in it."""
    requests: int
    queries: int


def calibrate(
    endpoint: str,
    *,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    n_classes: int,
    profile: str,
    timeout_s: float = 30.0,
    proxy: str | None = None,
) -> Calibration:
    """Ask ordinary labelled inputs, never keys, and return a profile in which the labels' meaning is fixed.

    Labels that were answered but whose class is not beyond doubt count as no label; labels that no ordinary input was
    answered with count as one label outside the task's own.

    Args:
        endpoint: address of the service.
        inputs: ordinary inputs, uint8, shape (n, channels, height, width).
        labels: their classes, from 0.
        n_classes: number of classes of the task.
        profile: name or file of the profile that the map is added to.
        timeout_s: longest time for one answer.
        proxy: address of the proxy to go through.

    Raises:
        UsageError: the profile has a label map already, or the proxy is no address.
        SuspectError: the service does not answer, or not in this profile's form.
    """
    check_proxy(proxy)
    chosen, text = without_map(profile)
    # The package's own contract has no label map; its profile as a file has.
    with HttpSuspect(endpoint, profile=replace(chosen, sha256=""), timeout_s=timeout_s, proxy=proxy) as suspect:
        names = OwnLabels()
        suspect.dialect.reading = replace(chosen.reading, label_map=names)
        suspect.describe()
        told: list[str] = []
        for start in range(0, len(inputs), suspect.batch_size):
            batch = np.ascontiguousarray(inputs[start : start + suspect.batch_size])
            answers = suspect.query(batch).reply.answers
            own = {number: name for name, number in names.items()}
            told += [own.get(answer.label, str(answer.label)) for answer in answers]
    fitted = fit_label_map(truth=labels.tolist(), answered=told, n_classes=n_classes)
    if not fitted.label_map:
        raise UsageError(f"{len(told)} ordinary inputs do not show what any label means; ask more of them")
    lines = [f"{json.dumps(name)} = {label}" for name, label in fitted.label_map.items()]
    lines += [f"{json.dumps(name)} = -1" for name in fitted.unmapped]
    header = f"# Fitted on {len(told)} ordinary inputs before any key was asked; -1: not beyond doubt, no label.\n"
    return Calibration(
        fitted=fitted,
        profile=f"{text}\n\n{header}[labels.map]\n{chr(10).join(lines)}\n".encode(),
        requests=suspect.n_requests,
        queries=len(told),
    )


def without_map(profile: str) -> tuple[Profile, str]:
    """Return a profile by name or file, and its text, to which a label map can be added.

    Raises:
        UsageError: it has a label map already, or there is no such profile.
    """
    chosen, text = load(profile), source(profile).decode("utf-8").rstrip()
    if chosen.reading.label_map or re.search(r"^\s*\[labels", text, re.MULTILINE):
        raise UsageError(f"profile {chosen.name} has [labels] already; calibration starts from one without")
    return chosen, text
