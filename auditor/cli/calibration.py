"""Reads the ordinary inputs that ``verify --calibration`` asks before any key."""

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.calibrating import OrdinaryInputs
    from auditor.evidence.keyset import OpenedKeySet


def ordinary_inputs(text: str, opened: "OpenedKeySet") -> "OrdinaryInputs":
    """Return labelled inputs from a data set's test part or from a file.

    Args:
        text: name of a data set, ``npz:FILE`` in that form, or a file with the arrays ``inputs`` (uint8, shape (n,
            channels, height, width)) and ``labels`` (whole numbers from 0, shape (n,)).
        opened: the key set; its samples are left out.

    Raises:
        UsageError: no such data, or it does not fit the key set's task.
    """
    from auditor.calibrating import choose_inputs

    if Path(text).suffix == ".npz" and not text.startswith("npz:"):
        from auditor.cli.probe import ordinary_file

        inputs, labels = ordinary_file(Path(text))
        if labels is None:
            raise UsageError(f"{Path(text).name}: a calibration needs an array 'labels'")
        return choose_inputs(inputs, labels, opened=opened, source=Path(text).name)
    from auditor import datasets

    dataset = datasets.load(text)
    if len(dataset.classes) != len(opened.seal.spec.classes):
        raise UsageError(
            f"{text}: it has {len(dataset.classes)} classes, the key set's task {len(opened.seal.spec.classes)}"
        )
    return choose_inputs(dataset.test.inputs, dataset.test.labels, opened=opened, source=f"{dataset.name}, test part")
