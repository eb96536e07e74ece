"""Questions on their way to a suspect: one at a time, or several where the suspect permits it.

Only the caller's thread writes evidence; other threads wait for the network and hand back what came. With one lane
there is no other thread, so that Ctrl-C strikes where the answer is waited for.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

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
        self._waiting: list[tuple[int, Inputs]] = []
        self._running: dict[Future[Exchange], int] = {}
        self._back: list[Arrival] = []
        self._bell = threading.Event()
        """Rung whenever a batch has come back; silenced before one looks, so that none is overheard."""
        self._pool = ThreadPoolExecutor(self._width, thread_name_prefix="lane") if self._width > 1 else None

    @property
    def n_in_flight(self) -> int:
        """Batches that were sent and have not come back."""
        return len(self._waiting) + len(self._running)

    @property
    def n_free(self) -> int:
        """Batches that may be sent now."""
        return self._width - self.n_in_flight

    def send(self, number: int, inputs: Inputs) -> None:
        """Send a batch; with one lane it leaves when its answer is waited for."""
        if self._pool is None:
            self._waiting.append((number, inputs))
        else:
            future = self._pool.submit(self._suspect.query, inputs)
            self._running[future] = number
            future.add_done_callback(lambda _: self._bell.set())

    def wait(self) -> None:
        """Wait until a batch has come back; Ctrl-C may strike here without losing one that has."""
        if self._pool is None:
            number, inputs = self._waiting.pop(0)
            self._back.append(_arrival(number, lambda: self._suspect.query(inputs)))
        else:
            self._bell.wait()

    def take(self) -> tuple[Arrival, ...]:
        """Return all batches that have come back, in the order of their numbers; called with Ctrl-C held back."""
        taken, self._back = (*self._back, *self._arrived()), []
        return taken

    def last(self) -> tuple[Arrival, ...]:
        """Return what still comes back in a short time; what does not is cut off and stays on its way for ever."""
        if self._pool is None:
            self._waiting.clear()
            return self.take()
        wait(self._running, timeout=GRACE_S)
        self._suspect.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        return tuple(arrival for arrival in self._arrived() if arrival.exchange is not None)

    def close(self) -> None:
        """Cut off whatever is on its way and end all threads."""
        if self._pool is not None:
            if self._running:
                self._suspect.cancel()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _arrived(self) -> Iterator[Arrival]:
        self._bell.clear()
        done = [(number, future) for future, number in self._running.items() if future.done()]
        for number, future in sorted(done, key=lambda item: item[0]):
            del self._running[future]
            if not future.cancelled():
                yield _arrival(number, future.result)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended: an answer that was paid for is written down first."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held:
            previous(signal.SIGINT, None)


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


def _arrival(number: int, ask: Callable[[], Exchange]) -> Arrival:
    try:
        return Arrival(number=number, exchange=ask(), error=None)
    except SuspectError as error:
        return Arrival(number=number, exchange=None, error=error)
