"""What was asked so far and what became of it, in a few bytes per question."""

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from auditor.records import Answer, Probe, Reply

_NO_ANSWER, _WHOLE = -1, -2
"""In the place of a label: none was logged, or the answer says more than a label."""


class Issued(Sequence[Reply]):
    """Every issued probe with its answer, in the drawn order; replies are made as they are looked at.

    An answer that is a label takes four bytes, however many there are; one with scores is kept as it is.

    Args:
        planned: the probes in the drawn order.
    """

    def __init__(self, planned: Sequence[Probe]) -> None:
        self._planned = planned
        self._labels = array("i")
        self._whole: dict[int, Answer] = {}
        self._end: int | None = None
        self.any_answer = False
        """Whether one of them was answered."""

    def issue(self, n: int) -> None:
        """Take note that the next ``n`` probes were asked."""
        self._labels.extend([_NO_ANSWER] * n)

    def answered(self, position: int, answer: Answer) -> None:
        """Take note of the answer to an issued probe."""
        self.any_answer = True
        if answer.scores is None and answer.top is None and answer.label >= 0:
            self._labels[position] = answer.label
        else:
            self._labels[position] = _WHOLE
            self._whole[position] = answer

    def until(self, end: int) -> "Issued":
        """Return the beginning up to position ``end``, without a copy; later answers to it show."""
        beginning = Issued(self._planned)
        beginning._labels, beginning._whole = self._labels, self._whole
        beginning._end = min(end, len(self))
        beginning.any_answer = self.any_answer
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
            return tuple(self._reply(position) for position in range(*place.indices(len(self))))
        return self._reply(range(len(self))[place])

    def _reply(self, position: int) -> Reply:
        label = self._labels[position]
        if label >= 0:
            answer: Answer | None = Answer(label=label)
        else:
            answer = self._whole[position] if label == _WHOLE else None
        return Reply(probe=self._planned[position], answer=answer)
