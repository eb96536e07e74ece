"""Filled declarations for tests of the report."""

from auditor.evidence.declarations import FORM, Declarations


def declarations(report: str = "", **changes: str) -> Declarations:
    """Return complete declarations about ``report``; ``section__name`` changes a field."""
    values = {field.path: f"said about {field.path}" for field in FORM} | {"declarations.date": "2026-11-22"}
    values |= {path.replace("__", "."): text for path, text in changes.items()}
    return Declarations(report=report, values=values)
