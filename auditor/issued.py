"""What was asked so far and what became of it, in a few bytes per question."""

import os
import struct
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from auditor.records import Answer, Probe, Reply

SPOOL_BYTES = 64 * 1024
"""Scores that are gathered before they go to the file; a list never lies partly here and partly there."""
_NO_ANSWER = -1
"""In the place of a label: none was logged."""


class Issued(Sequence[Reply]):
    """Every issued probe with its answer, in the drawn order; replies are made as they are looked at.

    An answer that is a label takes four bytes of memory, however many there are. One with scores takes eight more; its
    scores wait in a file without a name, because the sealed rule may look at them again.

    Args:
        planned: the probes in the drawn order.
        folder: where such a file is made; None takes the system's folder for temporary files.
    """

    def __init__(self, planned: Sequence[Probe], *, folder: Path | None = None) -> None:
        self._planned = planned
        self._labels = array("i")
        self._places = array("q")
        """By position up to the last answer that says more than a label: where its scores lie, from 1, negative where
        labels stand beside them; 0 for any other."""
        self._spool = _Spool(folder)
        self._plain: dict[int, Answer] = {}
        self._end: int | None = None
        self.any_answer = False
        """Whether one of them was answered."""

    def issue(self, n: int) -> None:
        """Take note that the next ``n`` probes were asked."""
        self._labels.extend([_NO_ANSWER] * n)

    def answered(self, position: int, answer: Answer) -> None:
        """Take note of the answer to an issued probe.

        Raises:
            OSError: the disk does not take its scores.
        """
        self.any_answer = True
        self._labels[position] = answer.label
        if answer.scores is None and answer.top is None:
            return
        self._places.extend([0] * (position + 1 - len(self._places)))
        if answer.scores is not None:
            self._places[position] = 1 + self._spool.put(array("d", answer.scores))
        else:
            pairs = answer.top or ()
            labels = array("q", [label for label, _ in pairs])
            self._places[position] = -1 - self._spool.put(array("d", [score for _, score in pairs]), labels)

    def labels(self, start: int) -> npt.NDArray[np.int32]:
        """Return the labels answered from position ``start`` on, -1 where no answer is known."""
        return np.frombuffer(self._labels[start : len(self)], dtype=np.int32)

    def until(self, end: int) -> "Issued":
        """Return the beginning up to position ``end``, without a copy; later answers to it show."""
        beginning = Issued.__new__(Issued)
        beginning.__dict__.update(self.__dict__)
        beginning._end = min(end, len(self))
        return beginning

    def __len__(self) -> int:
        return len(self._labels) if self._end is None else self._end

    def __iter__(self) -> Iterator[Reply]:
        return map(self._reply, range(len(self)))

    @overload
    def __getitem__(self, place: int) -> Reply: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Reply, ...]: ...
    def __getitem__(self, place: int | slice) -> Reply | tuple[Reply, ...]:
        if isinstance(place, slice):
            return tuple(map(self._reply, range(*place.indices(len(self)))))
        return self._reply(range(len(self))[place])

    def _reply(self, position: int) -> Reply:
        label = self._labels[position]
        if label == _NO_ANSWER:
            return Reply(probe=self._planned[position], answer=None)
        place = self._places[position] if position < len(self._places) else 0
        if place > 0:
            answer: Answer | None = Answer(label=label, scores=_Scores(self._spool, place - 1))
        elif place < 0:
            answer = Answer(label=label, top=self._spool.pairs(-place - 1))
        elif (answer := self._plain.get(label)) is None:
            answer = self._plain[label] = Answer(label=label)
        return Reply(probe=self._planned[position], answer=answer)


class _Spool:
    """Lists of scores one after the other in a file without a name, made when the first one comes.

    Each is their number, the scores, and perhaps as many labels.
    """

    _NUMBER = struct.Struct("<q")

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._size = 0
        self._waiting = bytearray()
        """The end of it, which is not in the file yet."""

    def put(self, scores: "array[float]", labels: "array[int] | None" = None) -> int:
        """Append a list and return where it lies."""
        place = self._size + len(self._waiting)
        self._waiting += (
            self._NUMBER.pack(len(scores)) + scores.tobytes() + (b"" if labels is None else labels.tobytes())
        )
        if len(self._waiting) > SPOOL_BYTES:
            self._flush()
        return place

    def scores(self, place: int) -> tuple[float, ...]:
        """Return the scores that lie at a place."""
        found = array("d")
        found.frombytes(self._read(place + 8, 8 * self.number(place)))
        return tuple(found)

    def number(self, place: int) -> int:
        """Return how many scores lie at a place."""
        return int(self._NUMBER.unpack(self._read(place, 8))[0])

    def pairs(self, place: int) -> tuple[tuple[int, float], ...]:
        """Return the labels with their scores that lie at a place."""
        n, labels = self.number(place), array("q")
        labels.frombytes(self._read(place + 8 + 8 * n, 8 * n))
        return tuple(zip(labels, self.scores(place), strict=True))

    def _read(self, place: int, n_bytes: int) -> bytes:
        if place >= self._size:
            return bytes(self._waiting[place - self._size : place - self._size + n_bytes])
        return os.pread(self._file.fileno(), n_bytes, place)

    def _flush(self) -> None:
        if not self._size:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        while self._waiting:
            n_written = os.pwrite(self._file.fileno(), self._waiting, self._size)
            self._size += n_written
            del self._waiting[:n_written]


class _Scores(Sequence[float]):
    """One answer's scores in the spool."""

    __slots__ = ("_place", "_spool")

    def __init__(self, spool: _Spool, place: int) -> None:
        self._spool, self._place = spool, place

    def __len__(self) -> int:
        return self._spool.number(self._place)

    def __iter__(self) -> Iterator[float]:
        return iter(self._spool.scores(self._place))

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[float, ...]: ...
    def __getitem__(self, place: int | slice) -> float | tuple[float, ...]:
        return self._spool.scores(self._place)[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))
