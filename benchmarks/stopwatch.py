"""How long a training took, without what stands before and after its steps."""

import time

from auditor.records import Silent


class Stopwatch(Silent):
    """Times the steps of the last training that it saw, and nothing before or after them."""

    def __init__(self) -> None:
        self.n_steps = 0
        self.wall_seconds = self.cpu_seconds = 0.0

    def begin(self, title: str, total: int) -> None:
        """Start the clocks."""
        del title
        self.n_steps = total
        self._started = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Stop them."""
        self.wall_seconds = time.perf_counter() - self._started[0]
        self.cpu_seconds = time.process_time() - self._started[1]
