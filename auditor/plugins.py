"""Finds a variant by name: built in, or registered by another package under an entry-point group."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from auditor.errors import UsageError

T = TypeVar("T")


def find_class(name: str, *, kind: str, built_in: Mapping[str, str], group: str, base: type[T]) -> type[T]:
    """Return the class called ``name``; only the one that is named is imported.

    Args:
        name: what the user wrote.
        kind: what it is, for messages, such as ``"scheme"``.
        built_in: ``"module:Class"`` by name.
        group: entry-point group of other packages.
        base: what the class must derive from.

    Raises:
        UsageError: no such variant, or a plug-in that cannot be loaded or is something else.
    """
    if name in built_in:
        module, _, attribute = built_in[name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
    else:
        registered = [point for point in entry_points(group=group) if point.name == name]
        if not registered:
            raise UsageError(f"unknown {kind} {name!r}; known: {', '.join(sorted(built_in))}")
        try:
            found = registered[0].load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{kind} {name!r} cannot be loaded ({type(error).__name__})") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"{kind} {name!r} is not a {base.__name__}")
    return found
