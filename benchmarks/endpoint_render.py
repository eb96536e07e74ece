"""The page of `endpoint.py`: every figure beside the command that made it."""

import textwrap
from collections import Counter
from collections.abc import Sequence

GOAL = 1.15
CALM = 3.0
"""Load average up to which wall times of this machine tell something about the program."""

Rows = Sequence[dict[str, object]]


def page(kept: Rows) -> str:
    """Return the page for the rows that were kept; of equal settings the latest counts."""
    commands = dict.fromkeys(str(row["command"]) for row in kept)
    parts = [
        "# `verify` against a bare client loop",
        *_about(kept),
        "## Time",
        *_time(_calmest([row for row in kept if row["what"] == "speed"])),
        "## Processor time of the client",
        *_processor([row for row in kept if row["what"] == "speed" and not row["report"]]),
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
            "shared with other work: the load average stands beside each figure, because where it is far above the "
            f"number of cores, both sides mostly wait for a processor. Commits {commits}."
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
    table = [f"| {' | '.join((*names, 'to results', 'CPU', 'load', 'commit'))} |", "| --- " * 12 + "|"]
    for row in asked:
        table.append(
            f"| {row['disk']} | {row['fsync_ms']:g} | {row['service_ms']:g} | {row['batch']} | {row['concurrency']} | "
            f"{_median(row, 'bare_s'):.2f} | {_median(row, 'asking_s'):.2f} | {_judged(row['ratio'])} | "
            f"{row['ratio_whole']:.2f} | {row['ratio_cpu']:.2f} | {row['load']:g} | `{row['commit']}` |"
        )
    parts = [
        "\n".join(table),
        _paragraph(
            "The latest row of each setting; a row taken at a load above "
            f"{CALM:g} does not replace a calmer one, and rows that were replaced stay in the file."
        ),
        _paragraph(
            f"Goal: asking takes at most {GOAL:g} of the bare loop's wall time. By the time that the service itself "
            "takes:"
        ),
        _goal(asked),
        _paragraph(
            "What `verify` adds to a request is a nearly fixed time of the client's processor, and on disk one `fsync` "
            "per round of answers: asked one at a time, every answer waits for the disk before the next question may "
            "leave; asked several at a time, answers that arrive while the disk works share the next write. A service "
            "that answers within a few milliseconds on the same machine is therefore where the goal is hardest, and a "
            "row is bold where it is missed. Evidence in RAM survives no power failure and shows what the program "
            "itself costs."
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


def _goal(asked: Rows) -> str:
    """Return one line per service time and place of the evidence, with the span of all its rows."""
    table = [
        "| service ms | evidence on | rows | ratio, least to greatest | goal held in | verdict |",
        "| --- " * 6 + "|",
    ]
    for service_ms in sorted({row["service_ms"] for row in asked}, reverse=True):
        for disk in ("disk", "RAM"):
            ratios = [row["ratio"] for row in asked if (row["service_ms"], row["disk"]) == (service_ms, disk)]
            if ratios:
                n_held = sum(ratio <= GOAL for ratio in ratios)
                told = "met" if n_held == len(ratios) else "**missed**" if not n_held else "**met in part**"
                span = f"{min(ratios):.2f} to {max(ratios):.2f}"
                table.append(f"| {service_ms:g} | {disk} | {len(ratios)} | {span} | {n_held} | {told} |")
    return "\n".join(table)


def _processor(rows: Rows) -> list[str]:
    """Return the table of processor times, every commit beside those before it."""
    latest = {(_settings(row), row["commit"]): row for row in rows}.values()
    again = {key for key, n in Counter(_settings(row) for row in latest).items() if n > 1}
    names = ("evidence on", "service ms", "batch", "at a time", "commit", "requests", "bare CPU ms", "asking CPU ms")
    table = [f"| {' | '.join((*names, 'CPU ratio', 'load'))} |", "| --- " * 10 + "|"]
    for row in sorted((row for row in latest if _settings(row) in again), key=_settings):
        alone, asking = (_median(row, name) * 1000 / row["requests"] for name in ("bare_cpu_s", "asking_cpu_s"))
        table.append(
            f"| {row['disk']} | {row['service_ms']:g} | {row['batch']} | {row['concurrency']} | `{row['commit']}` | "
            f"{row['requests']} | {alone:.2f} | {asking:.2f} | {row['ratio_cpu']:.2f} | {row['load']:g} |"
        )
    return [
        _paragraph(
            "Settings that were measured at more than one commit, in the order of measuring; milliseconds per request. "
            "`15f47e5485cd` and `44fbe5ced760` are the program before each request was prepared once and its record "
            "made cheaper; `44fbe5ced760` and `0ba7dd63b0ef` took turns on the same busy machine. The bare loop is the "
            "same each time, so that its own figure shows what the load does to both."
        ),
        "\n".join(table),
    ]


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
            f"From {first['answers']:,} to {last['answers']:,} answers the peak grows by {growth:.0f} bytes an answer. "
            "The label alone takes four; an answer with scores is kept whole, because the sealed rule may look at "
            "them, and was not measured here. Bodies, headers and transcript stay on disk. The results are computed "
            "afterwards from the whole transcript, which is in memory then; that is not part of these figures."
        ),
    ]


def _paragraph(text: str) -> str:
    return textwrap.fill(text, width=118, break_long_words=False, break_on_hyphens=False)


def _calmest(rows: Rows) -> list[dict[str, object]]:
    """Return the latest row of each setting, a busy one only where there is no calm one."""
    found: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        before = found.get(_settings(row))
        if before is None or row["load"] <= CALM or before["load"] > CALM:
            found[_settings(row)] = row
    return list(found.values())


def _settings(row: dict[str, object]) -> tuple[object, ...]:
    return (row["disk"], row["service_ms"], row["batch"], row["concurrency"], row["report"])


def _median(row: dict[str, object], name: str) -> float:
    values = sorted(each[name] for each in row["rounds"])
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _judged(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio <= GOAL else f"**{ratio:.2f}**"
