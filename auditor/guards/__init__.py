"""Guards: what changes a model's answers at run time, so that whoever trains on them carries a mark."""

from auditor.guards.base import Guard, Guarded

__all__ = ["Guard", "Guarded"]
