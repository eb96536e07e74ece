"""The end of an attempt that takes too long, however the bytes trickle."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Deadline:
    """Ends an attempt that takes too long altogether.

    Timeouts of single reads would let a server keep an auditor for hours, one byte at a time. One thread watches all
    attempts of a suspect; it sleeps for a whole timeout whenever nothing runs, which is early enough for whatever
    starts meanwhile.
    """

    def __init__(self, timeout_s: float) -> None:
        self.expired = False
        self._timeout_s = timeout_s
        self._ends_s: float | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Shut the watched socket down after the timeout, unless the block ends before."""
        if self._thread is None:
            self._closed.clear()
            self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)
            self._thread.start()
        with self._lock:
            self.expired, self._socket = False, None
            self._ends_s = time.monotonic() + self._timeout_s
        try:
            yield
        finally:
            with self._lock:
                self._ends_s, self._socket = None, None

    def reads_from(self, connected: socket.socket | None) -> None:
        """Remember the socket that the answer will come from."""
        with self._lock:
            if self.expired:
                raise TimeoutError
            self._socket = connected

    def cut(self) -> None:
        """End the attempt that runs, as if its time were over."""
        with self._lock:
            self.expired = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        left_s = self._timeout_s
        while not self._closed.wait(left_s):
            with self._lock:
                left_s = self._timeout_s if self._ends_s is None else self._ends_s - time.monotonic()
                if left_s > 0:
                    continue
                self.expired, self._ends_s, left_s = True, None, self._timeout_s
                if self._socket is not None:
                    with suppress(OSError):
                        self._socket.shutdown(socket.SHUT_RDWR)
