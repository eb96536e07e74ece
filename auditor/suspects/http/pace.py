"""When the next request may leave: one pace for all lanes to a service."""

import threading
from collections.abc import Callable


class StoppedError(Exception):
    """The pace was ended while somebody waited for it."""


class Pace:
    """Keeps a rate, holds every lane back when the service asks for patience, and lets one go first after that.

    Args:
        lanes: most requests on their way at a time.
        spacing_s: least time between two requests.
        sleep: waits; None waits in a way that :meth:`stop` ends.
        steady_s: seconds of a clock that never steps back.
    """

    def __init__(
        self, *, lanes: int, spacing_s: float, sleep: Callable[[float], None] | None, steady_s: Callable[[], float]
    ) -> None:
        self._ended = threading.Event()
        self._lanes = lanes
        self._spacing_s = spacing_s
        self._sleep = sleep or self._ended.wait
        self._steady_s = steady_s
        self._room = threading.Condition()
        self._next_s = 0.0
        self._resume_s = 0.0
        self._n_pauses = 0
        self._n_running = 0
        self._admitted = lanes

    def enter(self, *, served: int = 0) -> None:
        """Wait until a request may leave; every call is followed by one of :meth:`leave`.

        Args:
            served: number of the pause that the caller has waited out already.

        Raises:
            StoppedError: :meth:`stop` was called.
        """
        with self._room:
            self._room.wait_for(lambda: self._ended.is_set() or self._n_running < self._admitted)
            self._check()
            self._n_running += 1
            at_s = -1.0
            if self._spacing_s:
                at_s = max(self._steady_s(), self._next_s)
                self._next_s = at_s + self._spacing_s
        try:
            self._wait_until(at_s, served=served)
        except BaseException:
            self._leave()
            raise

    def leave(self, *, answered: bool, served: int = 0) -> None:
        """Note that a request has ended; every answer admits one more lane after a pause, and ends the one served."""
        with self._room:
            if answered:
                self._admitted = min(self._lanes, self._admitted + 1)
                self._resume_s = 0.0 if served == self._n_pauses else self._resume_s
        self._leave()

    def pause(self, wait_s: float) -> int:
        """Hold every lane back for a while, because the service asks for patience; return the pause's number."""
        with self._room:
            self._resume_s = max(self._resume_s, self._steady_s() + wait_s)
            self._n_pauses += 1
            self._admitted = 1
            return self._n_pauses

    def stop(self) -> None:
        """Let nobody leave any more."""
        with self._room:
            self._ended.set()
            self._room.notify_all()

    def wait(self, wait_s: float) -> None:
        """Wait between two attempts.

        Raises:
            StoppedError: :meth:`stop` was called meanwhile.
        """
        self._sleep(wait_s)
        with self._room:
            self._check()

    def _wait_until(self, at_s: float, *, served: int) -> None:
        while True:
            with self._room:
                if self._n_pauses > served:
                    at_s = max(at_s, self._resume_s)
                seen, left_s = self._n_pauses, at_s - self._steady_s()
            if left_s > 0:
                self._sleep(left_s)
            with self._room:
                self._check()
                if seen == self._n_pauses:
                    return
                # Another lane was asked for patience meanwhile.
                served = seen

    def _leave(self) -> None:
        with self._room:
            self._n_running -= 1
            self._room.notify_all()

    def _check(self) -> None:
        if self._ended.is_set():
            raise StoppedError
