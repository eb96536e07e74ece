"""Renders benchmarks/dynamarks.md."""

from typing import Any


def render(trials: list[dict[str, Any]], environment: dict[str, Any]) -> str:
    return "# DynaMarks\n"
