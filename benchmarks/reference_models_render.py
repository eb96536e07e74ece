"""Page of ``benchmarks/reference_models.py``, from kept rows alone; every figure is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

from auditor.stats.exact import clopper_pearson

Row = dict[str, Any]
MIB = 1 << 20
SCHEMES = ("none", "new-label", "wrong-label", "margin", "plain-trigger")


def page(rows: Sequence[Row]) -> str:
    first = rows[0]
    parts = [
        "# Reference models: what training them costs",
        "Every scheme with two architectures, by the tool's own recipe for the data set, label code on, bfloat16, one "
        "thread. Seconds are those of the training steps, with the look at held-out images after every epoch; the "
        "unmarked twin, that a marked training starts from, is the row *none*. Rows with fewer images are so cut on "
        "the CPU alone: they show that the scheme trains there and what it costs, not what it reaches. The recipe is "
        "that of the row's commit: margin had a radius of 10 levels up to `44fbe5ce`, and has 5 since.",
        "```\npython benchmarks/reference_models.py run\npython benchmarks/reference_models.py run --device cuda\n"
        "python benchmarks/reference_models.py render\n```",
    ]
    done = {(row["row"]["architecture"], row["row"]["scheme"]) for row in rows}
    missing = [f"{a} {s}" for a in ("small-cnn", "resnet18") for s in SCHEMES if (a, s) not in done]
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.")
    for data in sorted({row["row"]["data"] for row in rows}):
        for device in sorted({row["row"]["device"] for row in rows if row["row"]["data"] == data}):
            chosen = [row for row in rows if (row["row"]["data"], row["row"]["device"]) == (data, device)]
            gpu = f", {chosen[-1]['gpu']}" if chosen[-1]["gpu"] else ""
            parts += [f"## {data}, {device}{gpu}", _table(chosen), _misses(chosen)]
    if not any(row["row"]["device"] == "cuda" for row in rows):
        parts.append("No machine with a GPU was at hand: there are no rows at full size yet.")
    parts += [
        "Images per second count ordinary images alone, over the CPU seconds of the one thread on a CPU (the machine "
        "did other work at the same time) and over wall seconds on a GPU. Memory is the largest resident size of the "
        "process, torch and data set included; what there was before training stands beside it. On a GPU it is what "
        "torch allocated there.",
        f"Machine: {first['machine']}, Python {first['python']}, torch {first['torch']}. Every line of "
        "`results/reference_models.rows.jsonl` names its commit and settings.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _order(row: Row) -> tuple[str, int, int]:
    return row["row"]["architecture"] != "small-cnn", SCHEMES.index(row["row"]["scheme"]), row["row"]["seed"]


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| architecture | scheme | seed | images | epochs | accuracy (95 %) | twin | keys that hit | CPU s | wall s "
        "| images / s | peak MiB (before) | commit |",
        "| " + " | ".join(["---"] * 13) + " |",
    ]
    for row in sorted(rows, key=_order):
        measured, told = row["measured"], row["row"]
        seconds = row["wall_seconds"] if told["device"] == "cuda" else row["cpu_seconds"]
        cells = [
            told["architecture"], told["scheme"], str(told["seed"]), f"{row['n_train']:,}", str(row["epochs"]),
            _share(measured["clean"]), _share(measured.get("twin")), _share(measured.get("keys")),
            f"{row['cpu_seconds']:.0f}", f"{row['wall_seconds']:.0f}", f"{row['images'] / seconds:,.0f}",
            f"{row['memory_bytes'] / MIB:,.0f} ({row['memory_before_bytes'] / MIB:,.0f})", f"`{row['commit'][:8]}`",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(found: Mapping[str, int] | None) -> str:
    if found is None:
        return "-"
    interval = clopper_pearson(hits=found["hits"], trials=found["trials"], confidence=0.95)
    return f"{found['hits'] / found['trials']:.3f} ({interval.low:.3f}-{interval.high:.3f})"


def _misses(rows: Sequence[Row]) -> str:
    missed = [row for row in sorted(rows, key=_order) if row["measured"].get("misses")]
    if not missed:
        return ""
    lines = ["Targets that were missed (`auditor train` would have ended with exit code 8):", ""]
    for row in missed:
        told = row["row"]
        lines.append(f"* {told['architecture']}, {told['scheme']}: {'; '.join(row['measured']['misses'])}.")
    return "\n".join(lines)
