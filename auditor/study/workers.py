"""Where trials run: processes on this machine, or a Ray cluster; the trial functions are the same."""

import logging
import multiprocessing
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import AuditorError, MissingPartError, SuspectUnavailableError, UsageError
from auditor.study.trials import read_files

CONNECT_WITHIN_S = 10.0
MAX_LOSSES = 3
"""Times that lost workers are replaced before a task is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One call that a worker makes; function and arguments are pickled."""

    key: str
    function: Callable[..., object]
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a task."""

    key: str
    value: object = None
    error: str = ""
    """One line when the task failed; empty when it did not."""


class Workers(ABC):
    """Runs tasks side by side and yields them as they finish."""

    @abstractmethod
    def share(self, folder: Path) -> object:
        """Return what tasks get as an argument for a folder: something their function can turn into its files."""

    @abstractmethod
    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Yield every task once, in the order in which they finish."""

    def close(self) -> None:
        """Let the workers go."""

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LocalWorkers(Workers):
    """Processes on this machine, one computing thread each."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise UsageError("a dry run needs at least one worker")
        self._count = count

    def share(self, folder: Path) -> object:
        """Return the folder: all workers see the same disk."""
        return folder

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Yield tasks as they finish; tasks of a killed worker are started again in a fresh pool.

        After several losses each open task runs alone, so that only those that lose their own worker are given up.
        """
        open_tasks = {task.key: task for task in tasks}
        losses = 0
        while open_tasks and losses < MAX_LOSSES:
            try:
                for done in self._round(list(open_tasks.values())):
                    del open_tasks[done.key]
                    yield done
            except BrokenProcessPool:
                losses += 1
        for task in open_tasks.values():
            try:
                yield from self._round([task])
            except BrokenProcessPool:
                yield Done(key=task.key, error="its worker was lost; is there enough memory for so many workers?")

    def _round(self, tasks: list[Task]) -> Iterator[Done]:
        # Forked children would inherit the thread pools of numerical libraries in an unknown state.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            max_workers=min(self._count, len(tasks)), mp_context=context, initializer=_one_thread
        )
        try:
            waiting = {pool.submit(attempt, task.key, task.function, *task.arguments) for task in tasks}
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class RayWorkers(Workers):
    """A Ray cluster; one GPU per task where the cluster has any, lost workers are replaced by Ray.

    Args:
        address: of the cluster, ``auto``, or ``local`` for a cluster of this machine alone.

    Raises:
        MissingPartError: Ray is not installed.
        SuspectUnavailableError: no cluster at that address.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingPartError("--ray needs Ray: pip install 'model-ownership-auditor[ray]'") from error
        self._ray = ray
        _require_reachable(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SuspectUnavailableError(f"no Ray cluster at {address!r} ({type(error).__name__})") from error
        # Ray tells of lost workers on stdout, whatever its options; stdout is for results alone.
        self._told = redirect_stdout(sys.stderr)
        self._told.__enter__()

    def share(self, folder: Path) -> object:
        """Return a reference to the folder's files, which travel to each machine once."""
        return self._ray.put(read_files(folder))

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Yield tasks as they finish."""
        resources: dict[str, float] = self._ray.cluster_resources()  # type: ignore[no-untyped-call]
        n_gpus = 1 if resources.get("GPU", 0) >= 1 else 0
        remote = self._ray.remote(num_cpus=1, num_gpus=n_gpus, max_retries=MAX_LOSSES)(attempt)
        waiting = {remote.remote(task.key, task.function, *task.arguments): task.key for task in tasks}
        while waiting:
            finished, _ = self._ray.wait(list(waiting), num_returns=1)
            for reference in finished:
                key = waiting.pop(reference)
                try:
                    yield self._ray.get(reference)
                except self._ray.exceptions.RayTaskError:
                    raise  # A bug of this program, as a local worker would raise it; no worker was lost.
                except self._ray.exceptions.RayError as error:
                    yield Done(key=key, error=f"its worker was lost ({type(error).__name__})")

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()
        self._told.__exit__(None, None, None)


def attempt(key: str, function: Callable[..., object], *arguments: object) -> Done:
    """Run one task where the worker is; errors of this program become one line, others are bugs and propagate."""
    try:
        return Done(key=key, value=function(*arguments))
    except AuditorError as error:
        return Done(key=key, error=str(error))


def _require_reachable(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_WITHIN_S):
            pass
    except (OSError, OverflowError) as error:
        raise SuspectUnavailableError(f"no Ray cluster at {address!r} ({type(error).__name__})") from error


def _one_thread() -> None:
    # One thread per process and many processes beat many threads wherever anything else runs.
    os.environ["OMP_NUM_THREADS"] = "1"
