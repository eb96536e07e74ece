"""The page of `endpoint.py`: every figure beside the command that made it."""

import textwrap
from collections.abc import Sequence

GOAL = 1.15

Rows = Sequence[dict[str, object]]


def page(kept: Rows) -> str:
    """Return the page for the rows that were kept; of equal settings the latest counts."""
    commands = dict.fromkeys(str(row["command"]) for row in kept)
    parts = [
        "# `verify` against a bare client loop",
        *_about(kept),
        "## Time",
        *_time(list({_settings(row): row for row in kept if row["what"] == "speed"}.values())),
        "## Memory",
        *_memory(list({row["answers"]: row for row in kept if row["what"] == "memory"}.values())),
        "## Commands",
        "\n".join(f"- `benchmarks/endpoint.py {command}`" for command in commands),
    ]
    return "\n\n".join(parts) + "\n"


def _about(kept: Rows) -> list[str]:
    commits = ", ".join(sorted({f"`{row['commit']}`" for row in kept}))
    return [
        _paragraph(
            f"Made by `benchmarks/endpoint.py`; rows in `results/endpoint.jsonl`. One machine, {kept[0]['machine']}, "
            "shared with other work: its load average stands beside each figure, and where it is far above the number "
            f"of cores, both sides mostly wait for a processor. Commits {commits}."
        ),
        _paragraph(
            "*bare*: a loop with `requests`, one session per thread, that parses each answer and keeps nothing. "
            "*asking*: the same questions by `verify`, whose record of an answer is on disk before the next question "
            "leaves in its place. *to results*: opening, asking, signing the transcript's head and computing "
            "`results.json`. Ratios are medians over rounds that alternate. *CPU*: the same ratio in processor time of "
            "the client alone, which depends least on other work; the fixed work of an audit is part of it."
        ),
    ]


def _time(speeds: Rows) -> list[str]:
    asked = sorted((row for row in speeds if not row["report"]), key=_settings)
    names = ("evidence on", "fsync ms", "service ms", "batch", "at a time", "bare s", "asking s", "ratio")
    table = [f"| {' | '.join((*names, 'to results', 'CPU', 'load'))} |", "| --- " * 11 + "|"]
    for row in asked:
        table.append(
            f"| {row['disk']} | {row['fsync_ms']:g} | {row['service_ms']:g} | {row['batch']} | {row['concurrency']} | "
            f"{_median(row, 'bare_s'):.2f} | {_median(row, 'asking_s'):.2f} | {_judged(row['ratio'])} | "
            f"{row['ratio_whole']:.2f} | {row['ratio_cpu']:.2f} | {row['load']:g} |"
        )
    held = {
        disk: (sum(row["ratio"] <= GOAL for row in rows), len(rows))
        for disk in ("disk", "RAM")
        for rows in [[row for row in asked if row["disk"] == disk]]
    }
    parts = [
        "\n".join(table),
        _paragraph(
            f"Goal: asking takes at most {GOAL:g} of the bare loop's wall time. **It is not met everywhere**: it holds "
            f"in {held['disk'][0]} of {held['disk'][1]} rows with the evidence on disk, which are those that count, "
            f"and in {held['RAM'][0]} of {held['RAM'][1]} with the evidence in memory, which survives no power failure "
            "and shows what the program itself costs; the others are bold. What cannot "
            "be saved is one `fsync` per round of answers: asked one at a time, "
            "every answer waits for the disk before the next question may leave. Asked several at a time, answers that "
            "arrive while the disk works share the next write."
        ),
    ]
    for row in (row for row in speeds if row["report"]):
        parts.append(
            _paragraph(
                "All of `verify` but the PDF - report, annexes, manifest, signature, check of its own output - took "
                f"{_median(row, 'verify_s'):.1f} s against {_median(row, 'bare_s'):.1f} s of the bare loop for "
                f"{row['answers']:,} answers ({row['service_ms']:g} ms service, batch {row['batch']}, "
                f"{row['concurrency']} at a time, load {row['load']:g})."
            )
        )
    return parts


def _memory(rows: Rows) -> list[str]:
    rows = sorted(rows, key=lambda row: row["answers"])
    table = ["| answers | before asking, MB | peak, MB | transcript, MB | load |", "| --- " * 5 + "|"]
    table += [
        f"| {row['answers']:,} | {row['before_mb']} | {row['peak_mb']} | {row['transcript_mb']} | {row['load']:g} |"
        for row in rows
    ]
    first, last = rows[0], rows[-1]
    growth = (last["peak_mb"] - first["peak_mb"]) * 1024**2 / (last["answers"] - first["answers"])
    return [
        _paragraph(
            "A plan holds at most 20,000 keys; the asking layer was therefore given the same questions over and over, "
            "with transcript and real server, batches of 64, 4 at a time. Peak resident memory of the process:"
        ),
        "\n".join(table),
        _paragraph(
            f"From {first['answers']:,} to {last['answers']:,} answers the peak grows by {growth:.0f} bytes an answer: "
            "one record of question and label, which the sealed rule looks at. Bodies, headers and transcript stay on "
            "disk. The results are computed afterwards from the whole transcript, which is in memory then; that is "
            "not part of these figures."
        ),
    ]


def _paragraph(text: str) -> str:
    return textwrap.fill(text, width=118, break_long_words=False, break_on_hyphens=False)


def _settings(row: dict[str, object]) -> tuple[object, ...]:
    return (row["disk"], row["service_ms"], row["batch"], row["concurrency"], row["report"])


def _median(row: dict[str, object], name: str) -> float:
    values = sorted(each[name] for each in row["rounds"])
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _judged(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio <= GOAL else f"**{ratio:.2f}**"
