"""The page of `endpoint.py`: every figure beside the command that made it."""

import textwrap
from collections.abc import Iterable, Sequence

GOAL = 1.15

Row = dict[str, object]
Rows = Sequence[Row]


def page(kept: Rows) -> str:
    """Return the page for the rows that were kept; of equal settings the latest counts."""
    speeds = list({_settings(row): row for row in kept if row["what"] == "speed"}.values())
    memory = list({(row["answers"], row["scores"]): row for row in kept if row["what"] == "memory"}.values())
    commands = dict.fromkeys(str(row["command"]) for row in kept)
    parts = [
        "# `verify` against a bare client loop",
        *_about(kept),
        *_in_short(speeds),
        *_time(speeds),
        "## Memory",
        *_memory(memory),
        "## Commands",
        "\n".join(f"- `benchmarks/endpoint.py {command}`" for command in commands),
    ]
    return "\n\n".join(parts) + "\n"


def _about(kept: Rows) -> list[str]:
    commits = ", ".join(sorted({f"`{row['commit']}`" for row in kept}))
    return [
        _paragraph(
            f"Made by `benchmarks/endpoint.py`; rows in `results/endpoint.jsonl`. One machine, {kept[0]['machine']}, a "
            "virtual one whose speed changes by the hour: only what stands in one row was measured at one time. "
            f"Commits {commits}."
        ),
        _paragraph(
            "*bare*: a loop with `requests` or `httpx`, one session per thread, that sends the same questions as plain "
            "JSON, parses each answer and keeps nothing. *asking*: the same questions by `verify`, whose record of an "
            "answer is on disk before the next question leaves in its place. Both alternate; a ratio is the median of "
            "the rounds' ratios. *disk*: the part of asking in which lines of the transcript were written and brought "
            "to disk; with several requests at a time others go on meanwhile. *without disk*: the ratio that is left "
            "when that part is taken away. *to results*: opening, asking, signing the transcript's head and computing "
            "`results.json`, against the bare loop. *CPU*: the ratio of the client's processor time; below 1 where our "
            "requests cost less than the library's usual way."
        ),
    ]


def _in_short(speeds: Rows) -> list[str]:
    """Return one line per kind of service, with the span of all its rows."""
    table = ["| service | rows | ratio, least to greatest | at most 1.15 | verdict |", "| --- " * 5 + "|"]
    for name, rows in _groups(speeds):
        ratios = [row["ratio"] for row in rows]
        n_held = sum(ratio <= GOAL for ratio in ratios)
        told = "met" if n_held == len(ratios) else "**missed**" if not n_held else "**met in part**"
        table.append(f"| {name} | {len(ratios)} | {min(ratios):.2f} to {max(ratios):.2f} | {n_held} | {told} |")
    return [
        f"Goal: asking takes at most {GOAL:g} of the bare loop's wall time.",
        "\n".join(table),
        _paragraph(
            "What `verify` adds to a request is one write to the disk and a fixed amount of work - the record, its "
            "hashes, the digest of the question - with a part for every answer and every score in it, which the record "
            "states as decimal text. A bare loop waits for the service and does next to nothing else. So the goal is "
            "met where a service takes the time of a real one, and missed where one on the same machine answers about "
            "as fast as the disk takes a line - here near a millisecond after a pause, whatever the way of writing - "
            "or sends many scores within a few milliseconds."
        ),
    ]


def _time(speeds: Rows) -> list[str]:
    parts = ["## Time"]
    names = ("client", "evidence on", "batch", "at a time", "bare ms", "asking ms", "ratio", "disk ms")
    for name, rows in _groups(speeds):
        table = [f"| {' | '.join((*names, 'without disk', 'to results', 'CPU', 'load'))} |", "| --- " * 12 + "|"]
        for row in rows:
            table.append(
                f"| {row['client']} | {row['disk']} | {row['batch']} | {row['concurrency']} | {_each(row, 'bare_s')} | "
                f"{_each(row, 'asking_s')} | {_judged(row['ratio'])} | {_each(row, 'disk_s')} | "
                f"{_without_disk(row)} | {row['ratio_whole']:.2f} | {row['ratio_cpu']:.2f} | {row['load']:g} |"
            )
        parts += [f"### {name}", "\n".join(table)]
    parts.append("Milliseconds are per request, medians of the rounds. A row is bold where the goal is missed.")
    for row in (row for row in speeds if row["report"]):
        parts.append(
            _paragraph(
                "All of `verify` but the PDF - report, annexes, manifest, signature, check of its own output - took "
                f"{_median(row, 'verify_s'):.1f} s against {_median(row, 'bare_s'):.1f} s of the bare loop for "
                f"{row['answers']:,} answers ({row['service_ms']:g} ms service, batch {row['batch']}, "
                f"{row['concurrency']} at a time)."
            )
        )
    return parts


def _memory(rows: Rows) -> list[str]:
    rows = sorted(rows, key=lambda row: (row["scores"], row["answers"]))
    table = ["| scores in an answer | answers | before asking, MB | peak, MB | transcript, MB |", "| --- " * 5 + "|"]
    table += [
        f"| {row['scores'] or 'a label alone'} | {row['answers']:,} | {row['before_mb']} | {row['peak_mb']} | "
        f"{row['transcript_mb']} |"
        for row in rows
    ]
    growths = []
    for scores in sorted({row["scores"] for row in rows}):
        first, *_, last = [row for row in rows if row["scores"] == scores]
        growth = (last["peak_mb"] - first["peak_mb"]) * 1024**2 / (last["answers"] - first["answers"])
        what = f"with {scores} scores" if scores else "that is a label"
        growths.append(f"{growth:.0f} bytes an answer {what}")
    return [
        _paragraph(
            "A plan holds at most 20,000 keys; the asking layer was therefore given the same questions over and over, "
            "with transcript and real server, batches of 64, 4 at a time. Peak resident memory of the process:"
        ),
        "\n".join(table),
        _paragraph(
            f"From {rows[0]['answers']:,} to {rows[-1]['answers']:,} answers the peak grows by "
            f"{' and '.join(growths)}. "
            "A label takes four bytes; scores wait in a file without a name until the sealed rule looks at them, and "
            "take eight bytes for their place. Bodies, headers and transcript stay on disk. The results are computed "
            "afterwards from the whole transcript, which is in memory then; that is not part of these figures."
        ),
    ]


def _groups(speeds: Rows) -> Iterable[tuple[str, list[Row]]]:
    """Yield the rows of one service after the other, fast ones last."""
    found: dict[str, list[Row]] = {}
    for row in sorted((row for row in speeds if not row["report"]), key=_order):
        found.setdefault(_service(row), []).append(row)
    return found.items()


def _service(row: Row) -> str:
    if row["service"] != "table":
        return f"{row['service']}, a real model of the digits"
    told = f"{row['scores']} scores" if row["scores"] else "labels"
    return f"answers with {told} after {row['service_ms']:g} ms"


def _order(row: Row) -> tuple[object, ...]:
    real = row["service"] != "table"
    slow_first = 0.0 if real else -float(str(row["service_ms"]))
    return (
        not real, row["service"], row.get("scores", 0), slow_first, row["disk"], row["client"] != "requests",
        row["batch"], row["concurrency"],
    )  # fmt: skip


def _settings(row: Row) -> tuple[object, ...]:
    names = ("service", "service_ms", "scores", "client", "disk", "batch", "concurrency", "report")
    return tuple(row.get(name) for name in names)


def _without_disk(row: Row) -> str:
    """Return the ratio that a disk without delay would leave; nothing where others go on while it works."""
    if row["concurrency"] != 1:
        return ""
    ratios = sorted((each["asking_s"] - each["disk_s"]) / each["bare_s"] for each in row["rounds"])
    return f"{ratios[len(ratios) // 2]:.2f}"


def _each(row: Row, name: str) -> str:
    return f"{_median(row, name) * 1000 / int(str(row['requests'])):.2f}"


def _median(row: Row, name: str) -> float:
    values = sorted(each[name] for each in row["rounds"])
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _judged(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio <= GOAL else f"**{ratio:.2f}**"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, width=118, break_long_words=False, break_on_hyphens=False)
