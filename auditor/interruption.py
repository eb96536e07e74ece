"""Ctrl-C while answers are paid for: held back until what has come in is written down."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Shield:
    """Holds Ctrl-C back inside ``with shield:``, where it strikes as the block ends.

    The handler is exchanged once, by :meth:`raised`, and not for every answer. Elsewhere than in the main thread, and
    where somebody has Ctrl-C ignored, there is nothing to hold back.
    """

    def __init__(self) -> None:
        self._is_up = False
        self._was_struck = False
        self._strike: Callable[[FrameType | None], object] = lambda frame: None

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Set the handler for the time of a block."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            yield
            return
        self._strike = lambda frame: previous(signal.SIGINT, frame)
        signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def __enter__(self) -> None:
        self._is_up = True

    def __exit__(self, *_: object) -> None:
        self._is_up = False
        if self._was_struck:
            self._was_struck = False
            self._strike(None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_up:
            self._was_struck = True
        else:
            self._was_struck = False
            self._strike(frame)
