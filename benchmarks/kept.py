"""Records that benchmarks keep: one JSON line each, on disk before the next trial begins, with what they ran on."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def kept_lines(path: Path) -> list[dict[str, Any]]:
    """Return all kept records, in the order in which they were made."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the last line of a killed run
    return found


def kept_by_id(path: Path) -> dict[str, dict[str, Any]]:
    """Return the kept records by their identity; of two with the same one, the later."""
    return {record["id"]: record for record in kept_lines(path)}


def keep(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record with the commit and the machine; several processes may write."""
    path.parent.mkdir(exist_ok=True)
    line = json.dumps({**record, **environment()}, sort_keys=True)
    with path.open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def environment() -> dict[str, str]:
    """Return the commit, marked where the package differs from it, and the machine."""
    import torch

    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    top = HERE.resolve().parent
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "auditor"], cwd=top, capture_output=True, text=True, check=False
    )
    commit = git.stdout.strip() if git.returncode == 0 else "uncommitted"
    return {
        "commit": commit + ("+changes" if dirty.stdout.strip() else ""),
        "machine": f"{os.cpu_count()} x {processor()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
