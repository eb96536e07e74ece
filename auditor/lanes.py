"""Questions on their way to a suspect: one at a time, or several where the suspect permits it.

Only the caller's thread writes evidence; other threads wait for the network and hand back what came. With one lane
there is no other thread, so that Ctrl-C strikes where the answer is waited for.
"""

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from auditor.errors import (
    SuspectAnswerError,
    SuspectError,
    SuspectRefusedError,
    SuspectThrottledError,
    SuspectUnavailableError,
)
from auditor.evidence.transcript import Loss
from auditor.records import Inputs
from auditor.suspects.base import Exchange, Suspect

GRACE_S = 2.0
"""How long Ctrl-C waits for answers that are paid for and on their way, where several are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What became of one batch."""

    number: int
    exchange: Exchange | None
    """None: there is no usable answer."""
    error: SuspectError | None
    """Why there is none."""


class Lanes:
    """As many batches on their way at a time as the suspect permits.

    Args:
        suspect: what is asked.
    """

    def __init__(self, suspect: Suspect) -> None:
        self._suspect = suspect
        self._width = suspect.concurrency
        self._tasks: SimpleQueue[tuple[int, Inputs] | None] = SimpleQueue()
        self._back: deque[tuple[int, Arrival | BaseException]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        """Rung once for every batch that has come back; silenced before one looks, so that none is overheard."""
        self._threads: list[threading.Thread] = []
        self.n_in_flight = 0
        """Batches that were sent and not taken back yet."""

    @property
    def n_free(self) -> int:
        """Batches that may be sent now."""
        return self._width - self.n_in_flight

    def send(self, number: int, inputs: Inputs) -> None:
        """Send a batch; with one lane it leaves when its answer is waited for."""
        self.n_in_flight += 1
        self._tasks.put((number, inputs))
        if 1 < self._width > len(self._threads):
            thread = threading.Thread(target=self._run, name=f"lane_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Wait until a batch has come back; Ctrl-C may strike here without losing one that has."""
        if self._width > 1:
            self._bell.get()
        elif (task := self._tasks.get()) is not None:
            self._back.append((task[0], self._ask(*task)))

    def take(self) -> tuple[Arrival, ...]:
        """Return all batches that have come back, in the order of their numbers; called with Ctrl-C held back.

        Raises:
            BaseException: what a lane met that is no :class:`SuspectError`.
        """
        while not self._bell.empty():
            self._bell.get()
        taken = sorted((self._back.popleft() for _ in range(len(self._back))), key=lambda item: item[0])
        self.n_in_flight -= len(taken)
        arrivals = []
        for _, what in taken:
            if isinstance(what, BaseException):
                raise what
            arrivals.append(what)
        return tuple(arrivals)

    def last(self) -> tuple[Arrival, ...]:
        """Return what still comes back in a short time; what does not is cut off and stays on its way for ever."""
        if self._width == 1:
            return self.take()
        ends_s = time.monotonic() + GRACE_S
        while len(self._back) < self.n_in_flight and (left_s := ends_s - time.monotonic()) > 0:
            with suppress(Empty):
                self._bell.get(timeout=left_s)
        self.close()
        return tuple(arrival for arrival in self.take() if arrival.exchange is not None)

    def close(self) -> None:
        """Cut off whatever is on its way and end all threads."""
        if self._threads and len(self._back) < self.n_in_flight:
            self._suspect.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            what: Arrival | BaseException
            try:
                what = self._ask(*task)
            except BaseException as error:  # noqa: BLE001
                # Whoever waits for the lanes meets it.
                what = error
            self._back.append((task[0], what))
            self._bell.put(None)

    def _ask(self, number: int, inputs: Inputs) -> Arrival:
        try:
            return Arrival(number=number, exchange=self._suspect.query(inputs), error=None)
        except SuspectError as error:
            return Arrival(number=number, exchange=None, error=error)


def loss_of(error: SuspectError) -> Loss | None:
    """Return the kind of loss that an error means; None where it does not say."""
    match error:
        case SuspectUnavailableError() | SuspectThrottledError():
            return Loss.NO_ANSWER
        case SuspectRefusedError():
            return Loss.REFUSED
        case SuspectAnswerError():
            return Loss.UNUSABLE
        case _:
            return None
