"""What was asked so far and what became of it, in a few bytes per question."""

import os
import struct
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from auditor.records import Answer, Probe, Reply

_NO_ANSWER, _SPOOLED = -1, -2
"""In the place of a label: none was logged, or the answer says more than a label and lies in the spool."""


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
        """Places in the spool; filled up to the last answer that has one."""
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
        if answer.scores is None and answer.top is None and answer.label >= 0:
            self._labels[position] = answer.label
            return
        self._labels[position] = _SPOOLED
        self._places.extend([0] * (position + 1 - len(self._places)))
        self._places[position] = self._spool.put(answer)

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
        if label >= 0:
            answer = self._plain.get(label)
            if answer is None:
                answer = self._plain[label] = Answer(label=label)
            return Reply(probe=self._planned[position], answer=answer)
        found = self._spool.get(self._places[position]) if label == _SPOOLED else None
        return Reply(probe=self._planned[position], answer=found)


class _Spool:
    """Answers with scores one after the other in a file without a name, made when the first one comes.

    Each is its label, the number of its scores, whether labels stand beside them, the scores, and those labels.
    """

    _HEAD = struct.Struct("<qq?")

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._size = 0

    def put(self, answer: Answer) -> int:
        """Append an answer and return where it lies."""
        if not self._size:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        listed = answer.scores is None and answer.top is not None
        labels = array("q", [label for label, _ in answer.top or ()] if listed else [])
        scores = array("d", [score for _, score in answer.top or ()] if listed else answer.scores or ())
        data = self._HEAD.pack(answer.label, len(scores), listed) + scores.tobytes() + labels.tobytes()
        place, self._size = self._size, self._size + len(data)
        left = memoryview(data)
        while left:
            left = left[os.pwrite(self._file.fileno(), left, self._size - len(left)) :]
        return place

    def get(self, place: int) -> Answer:
        """Return the answer that lies at a place; scores are read when they are looked at."""
        label, n, listed = self._HEAD.unpack(self._read(place, self._HEAD.size))
        scores = _Scores(self, place + self._HEAD.size, n)
        if not listed:
            return Answer(label=label, scores=scores)
        labels = array("q")
        labels.frombytes(self._read(place + self._HEAD.size + 8 * n, 8 * n))
        return Answer(label=label, top=tuple(zip(labels, scores, strict=True)))

    def scores(self, place: int, n: int) -> tuple[float, ...]:
        """Return ``n`` scores that lie one after the other."""
        found = array("d")
        found.frombytes(self._read(place, 8 * n))
        return tuple(found)

    def _read(self, place: int, n_bytes: int) -> bytes:
        return os.pread(self._file.fileno(), n_bytes, place)


class _Scores(Sequence[float]):
    """One answer's scores in the spool."""

    __slots__ = ("_n", "_place", "_spool")

    def __init__(self, spool: _Spool, place: int, n: int) -> None:
        self._spool, self._place, self._n = spool, place, n

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[float]:
        return iter(self._spool.scores(self._place, self._n))

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[float, ...]: ...
    def __getitem__(self, place: int | slice) -> float | tuple[float, ...]:
        return self._spool.scores(self._place, self._n)[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))
