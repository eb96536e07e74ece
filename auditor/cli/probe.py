"""``auditor probe``: a few ordinary questions to a service, and what its answers show."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zipfile import BadZipFile

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from auditor.records import Inputs
    from auditor.suspects.http.probing import Findings

MAX_PRINTED = 20
"""Labels that are printed; ``--json`` has them all."""


def probe(
    endpoint: Annotated[str, typer.Option(help="Address of the service; see auditor profiles for what it points to.")],
    profile: Annotated[
        str | None, typer.Option(help="Name or TOML file.", show_default="the built-in ones are tried in order")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Where ordinary inputs come from: a data set, or npz:FILE with inputs and labels.")
    ] = "digits",
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Also fit a label map on ordinary inputs, and write the profile with it to this .toml file."),
    ] = None,
    calibration_size: Annotated[int, typer.Option(min=1, help="Ordinary inputs that --calibrate asks.")] = 200,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait for one answer.")] = 30.0,
    proxy: Annotated[str | None, typer.Option(help="Proxy to go through; the environment's are not used.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Ask a service a few ordinary inputs, never keys, and show what it reveals; says how many requests that took."""
    from auditor.cli import console
    from auditor.suspects.http import probing
    from auditor.suspects.http.profile import load

    chosen = None if profile is None else load(profile)
    inputs, labels, classes = _ordinary(data)
    if calibrate is not None:
        _check_calibration(calibrate, labels, size=calibration_size, profile=profile)
    found = probing.probe(
        endpoint,
        inputs=inputs,
        labels=labels,
        classes=classes,
        profile=chosen,
        timeout_s=timeout,
        proxy=proxy,
    )
    if calibrate is not None and labels is not None:
        _calibrate(
            calibrate,
            endpoint,
            inputs=inputs[:calibration_size],
            labels=labels[:calibration_size],
            n_classes=len(classes),
            profile=profile or found.profile,
            timeout=timeout,
            proxy=proxy,
        )
    if as_json:
        console.print_json(found.as_object())
    else:
        for line in _lines(found):
            console.say(line)


def _check_calibration(file: Path, labels: "npt.NDArray[np.int64] | None", *, size: int, profile: str | None) -> None:
    """Refuse a calibration that cannot be before anything is asked, which may cost money."""
    from auditor.errors import UsageError
    from auditor.suspects.http.fitted_profile import without_map

    if file.suffix != ".toml" or file.exists() or not file.parent.is_dir():
        raise UsageError(
            f"{file.name}: --calibrate writes a new file whose name ends in .toml, in a folder that is there"
        )
    if labels is None or len(labels) < size:
        raise UsageError(f"a calibration of {size} needs as many ordinary inputs with labels")
    if profile is not None:
        without_map(profile)


def _calibrate(
    file: Path,
    endpoint: str,
    *,
    inputs: "Inputs",
    labels: "npt.NDArray[np.int64]",
    n_classes: int,
    profile: str,
    timeout: float,
    proxy: str | None,
) -> None:
    from auditor.cli import console
    from auditor.suspects.http.fitted_profile import calibrate

    found = calibrate(
        endpoint,
        inputs=inputs,
        labels=labels,
        n_classes=n_classes,
        profile=profile,
        timeout_s=timeout,
        proxy=proxy,
    )
    file.write_bytes(found.profile)
    fitted = found.fitted
    console.warn(
        f"{file.name}: {len(fitted.label_map)} labels mapped, {len(fitted.unmapped)} left out, "
        f"{len(fitted.unclaimed)} classes without a label; {fitted.agreement:.0%} of {found.queries} answers agree; "
        f"{found.requests} further requests"
    )


def _ordinary(data: str) -> "tuple[Inputs, npt.NDArray[np.int64] | None, tuple[str, ...]]":
    if not data.startswith("npz:"):
        from auditor import datasets

        dataset = datasets.load(data)
        return dataset.test.inputs, dataset.test.labels, dataset.classes
    inputs, labels = ordinary_file(Path(data.removeprefix("npz:")))
    classes = () if labels is None else tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
    return inputs, labels, classes


def ordinary_file(path: Path) -> "tuple[Inputs, npt.NDArray[np.int64] | None]":
    """Return the arrays ``inputs`` and, if it is there, ``labels`` of a file.

    Raises:
        UsageError: it cannot be read, or they are not such arrays.
    """
    import numpy as np

    from auditor.errors import UsageError

    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, labels = (arrays.get(name, None) for name in ("inputs", "labels"))
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise UsageError(f"{path.name}: cannot be read as arrays ({type(error).__name__})") from error
    if inputs is None or inputs.dtype != np.uint8 or inputs.ndim != 4:
        raise UsageError(f"{path.name}: needs an array 'inputs', uint8 of shape (n, channels, height, width)")
    if labels is not None and (labels.shape != (len(inputs),) or labels.dtype.kind not in "iu" or (labels < 0).any()):
        raise UsageError(f"{path.name}: the array 'labels' must hold one whole number from 0 per input")
    return inputs, None if labels is None else labels.astype(np.int64)


def _lines(found: "Findings") -> list[str]:
    known = f", declares {found.declared_labels}" if found.declared_labels is not None else ""
    seen = f"names {_some(found.names)}" if found.names else f"numbers {_some([str(n) for n in found.numbers])}"
    scores = "labels only"
    if found.scores and found.score_sum is not None:
        low, high = found.score_sum
        lowest, highest = f"{low:.4g}", f"{high:.4g}"
        total = f"sum {lowest}" if lowest == highest else f"sums {lowest} to {highest}"
        scores = f"{found.scores} scores per answer, {total}, at most {found.decimals} decimals"
    steady = "same label and scores" if found.same_scores else "same label" if found.same_labels else "ANOTHER LABEL"
    limits = [f"{name}: {value}" for name, value in found.limits.items()]
    limits += [f"Retry-After: {found.retry_after}"] if found.retry_after else []
    lines = [
        f"profile      {found.profile}",
        f"name         {found.name or 'none given'}",
        f"labels       {seen}{known}",
        f"reveals      {scores}",
        f"repeated     {steady} for one input asked several times",
        f"latency      {found.latency_ms[0]} ms median, {found.latency_ms[1]} ms at most",
        f"batch        {found.batch} answered together{'; more: ' * bool(found.batch_problem)}{found.batch_problem}",
        f"limits       {', '.join(limits) or 'none seen'}",
    ]
    if found.agreement is not None:
        lines.append(f"task         {found.agreement[0]} of {found.agreement[1]} answers are the input's own class")
    lines += [f"not          {name}: {reason}" for name, reason in found.refused]
    return [*lines, f"spent        {found.requests} requests, {found.queries} inputs asked; no key among them"]


def _some(names: "Sequence[str]") -> str:
    more = f" and {len(names) - MAX_PRINTED} more" if len(names) > MAX_PRINTED else ""
    return ", ".join(names[:MAX_PRINTED]) + more
