"""Terminal output: results on stdout, progress and warnings on stderr; Rich lives here only."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from auditor.canonical import JsonValue

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 5.0


class LineProgress:
    """Progress as plain lines, for logs and pipes."""

    def __init__(self) -> None:
        self._title = ""
        self._total = 0
        self._done = 0
        self._begun_s = 0.0
        self._last_s = 0.0

    def begin(self, title: str, total: int) -> None:
        """Print the title."""
        self._title, self._total, self._done = title, total, 0
        self._begun_s = self._last_s = time.monotonic()
        warn(f"{title} …")

    def advance(self, n: int = 1) -> None:
        """Print the share done and the time left at the present rate, at most every few seconds."""
        self._done += n
        now_s = time.monotonic()
        if now_s - self._last_s >= PLAIN_INTERVAL_S:
            self._last_s = now_s
            left = time_left(self._done, self._total, now_s - self._begun_s)
            warn(f"{self._title}: {self._done}/{self._total}{left and f', {left}'}")

    def note(self, text: str) -> None:
        """Print the note."""
        warn(f"  {text}")

    def end(self) -> None:
        """Say nothing more about this piece of work."""


class BarProgress:
    """Progress as a Rich bar on a terminal."""

    def __init__(self, bar: "RichProgress") -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def begin(self, title: str, total: int) -> None:
        """Start a new bar."""
        self.end()
        self._task = self._bar.add_task(title, total=total)

    def advance(self, n: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, n)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bar.console.print(f"  {text}", style="dim", markup=False, highlight=False)

    def end(self) -> None:
        """Leave the bar as finished."""
        if self._task is not None:
            self._bar.update(self._task, completed=self._bar.tasks[-1].total)
            self._task = None


@contextmanager
def progress() -> Iterator[LineProgress | BarProgress]:
    """Yield where long work reports how far it is: a bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield BarProgress(bar)


def time_left(done: int, total: int, elapsed_s: float) -> str:
    """Return how long the rest takes at the present rate, in words; empty where nothing can be said."""
    if done <= 0 or total <= done:
        return ""
    left_s = elapsed_s * (total - done) / done
    if left_s < 90:
        return f"about {max(1, round(left_s))} s left"
    return f"about {round(left_s / 60)} min left" if left_s < 5400 else f"about {left_s / 3600:.1f} h left"


def say(text: str) -> None:
    """Print one result line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print one line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: JsonValue) -> None:
    """Print one JSON object on stdout."""
    say(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; columns whose cells are all numbers are aligned to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left")
    for j, name in enumerate(columns):
        numeric = all(_is_number(row[j]) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    # Outside a terminal Rich falls back to 80 columns, which would wrap paths and digests.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(grid)


def _is_number(cell: str) -> bool:
    try:
        float(cell.rstrip("%").lstrip("<>≤≥ "))
    except ValueError:
        return cell in ("", "-", "–")
    return True
