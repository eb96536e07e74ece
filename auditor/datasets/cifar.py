"""CIFAR-10 and CIFAR-100 in their binary version: plain records of bytes, never a pickle.

A record is one label byte (CIFAR-100: the coarse label, then the fine one) and 3072 pixel bytes: 1024 red, 1024 green,
1024 blue, each row by row.
"""

from pathlib import Path

import numpy as np

from auditor.datasets.parts import Dataset, Part, hold_out
from auditor.datasets.sources import folder_of, read_file
from auditor.errors import MalformedError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
N_FINE = 100
FINE_NAMES = "fine_label_names.txt"


def cifar10() -> Dataset:
    """Return CIFAR-10 from ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.

    Raises:
        MissingPartError: a file is absent.
        MalformedError: a file is damaged.
    """
    folder = folder_of("cifar10")
    batches = [read_records(folder / f"data_batch_{i}.bin", n_labels=1, n_classes=10) for i in range(1, 6)]
    training = Part(
        inputs=np.concatenate([batch.inputs for batch in batches]),
        labels=np.concatenate([batch.labels for batch in batches]),
    )
    test = read_records(folder / "test_batch.bin", n_labels=1, n_classes=10)
    return hold_out(name="cifar10", classes=CIFAR10_CLASSES, training=training, test=test, purpose="cifar10")


def cifar100() -> Dataset:
    """Return CIFAR-100 under its fine labels, from ``train.bin``, ``test.bin`` and ``fine_label_names.txt``.

    Raises:
        MissingPartError: a file is absent.
        MalformedError: a file is damaged.
    """
    folder = folder_of("cifar100")
    names = tuple(read_file(folder / FINE_NAMES).decode("ascii", errors="replace").split())
    if len(names) != N_FINE or len(set(names)) != N_FINE:
        raise MalformedError(f"{FINE_NAMES}: {N_FINE} different names expected")
    training = read_records(folder / "train.bin", n_labels=2, n_classes=N_FINE)
    test = read_records(folder / "test.bin", n_labels=2, n_classes=N_FINE)
    return hold_out(name="cifar100", classes=names, training=training, test=test, purpose="cifar100")


def read_records(path: Path, *, n_labels: int, n_classes: int) -> Part:
    """Return the images of one binary file under the last of their ``n_labels`` labels.

    Raises:
        MissingPartError: the file is absent.
        MalformedError: it does not hold whole records, or a label is out of range.
    """
    data = np.frombuffer(read_file(path), dtype=np.uint8)
    size = n_labels + PIXELS
    if len(data) == 0 or len(data) % size:
        raise MalformedError(f"{path.name}: {len(data)} bytes are no whole number of records of {size} bytes")
    records = data.reshape(-1, size)
    labels = records[:, n_labels - 1].astype(np.int64)
    if int(labels.max()) >= n_classes:
        raise MalformedError(f"{path.name}: label {int(labels.max())} in a task of {n_classes} classes")
    return Part(inputs=np.ascontiguousarray(records[:, n_labels:]).reshape(-1, *SHAPE), labels=labels)
