"""Body templates of profiles: the part of Jinja2 that a request needs, so that a profile can neither hang nor swell.

A profile may come from the other side of a case. Calls, arithmetic, assignments and filters that make text longer are
refused when the profile is read; a loop goes over the inputs, and not inside another.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from auditor.errors import SuspectAnswerError

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes

MAX_REQUEST_CHARACTERS = 256 * 1024 * 1024
BATCHES = frozenset({"tensor", "images"})
"""Variables that a loop may go over, one input after the other."""
VARIABLES = BATCHES | {"flat", "shape", "data_b64", "image", "n", "described"}
OBJECTS = frozenset({"described", "loop"})
FILTERS = frozenset({"tojson", "length", "first", "last"})
NODES = frozenset(
    "Template Output TemplateData Name Const If CondExpr Not And Or Compare Operand Concat".split()  # noqa: SIM905
)
"""Kinds of nodes that may stand anywhere; the others have rules of their own."""


class JsonList(tuple[str, ...]):
    """One text of JSON per input: as a whole a JSON list, in a loop one after the other."""

    __slots__ = ()

    def __str__(self) -> str:
        return "[" + ",".join(self) + "]"


def template_problem(template: str) -> str:
    """Return what is wrong with a body template, or empty text."""
    import jinja2
    from jinja2 import meta

    try:
        tree = _environment().parse(template)
        # Before anything else, which would already compute what is constant.
        refused = _refused(tree, in_loop=False)
        if refused is not None:
            return f"uses what no request needs ({type(refused).__name__} in its line {refused.lineno})"
        unknown = sorted(meta.find_undeclared_variables(tree) - VARIABLES)
    except (jinja2.TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        return f"is not a Jinja2 template (its line {line})" if line else "is not a Jinja2 template"
    return f"uses {unknown[0][:40]!r}; known: {', '.join(sorted(VARIABLES))}" if unknown else ""


def filled(template: str, values: Mapping[str, object], *, name: str) -> str:
    """Return a template filled in.

    Args:
        template: one in which :func:`template_problem` finds nothing.
        values: JSON texts and lists of them by variable.
        name: of the profile, for messages.

    Raises:
        SuspectAnswerError: it does not suit these values, or the request would be too large.
    """
    import jinja2

    pieces: list[str] = []
    n_characters = 0
    try:
        for piece in _template(template).generate(values):
            pieces.append(piece)
            n_characters += len(piece)
            if n_characters > MAX_REQUEST_CHARACTERS:
                raise SuspectAnswerError(f"profile {name}: the filled template is too large")
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise SuspectAnswerError(f"profile {name}: the template cannot be filled ({type(error).__name__})") from error
    return "".join(pieces)


def _refused(node: "nodes.Node", *, in_loop: bool) -> "nodes.Node | None":
    """Return the first node that a request's template may not hold."""
    if not _is_permitted(node, in_loop=in_loop):
        return node
    within = in_loop or type(node).__name__ == "For"
    return next((found for child in node.iter_child_nodes() if (found := _refused(child, in_loop=within))), None)


def _is_permitted(node: "nodes.Node", *, in_loop: bool) -> bool:
    from jinja2 import nodes

    match node:
        case nodes.For():
            over = node.iter.name if isinstance(node.iter, nodes.Name) else ""
            return over in BATCHES and isinstance(node.target, nodes.Name) and not in_loop and not node.recursive
        case nodes.Filter():
            # One after the other they would double the text each time.
            plain = not node.args and not node.kwargs and node.dyn_args is None and node.dyn_kwargs is None
            return node.name in FILTERS and plain and not isinstance(node.node, nodes.Filter)
        case nodes.Getattr():
            return isinstance(node.node, nodes.Name) and node.node.name in OBJECTS and not node.attr.startswith("_")
        case nodes.Getitem():
            return isinstance(node.node, nodes.Name) and isinstance(node.arg, nodes.Const)
        case _:
            return type(node).__name__ in NODES


@lru_cache(maxsize=16)
def _template(text: str) -> "jinja2.Template":
    import jinja2

    try:
        return _environment().from_string(text)
    except jinja2.TemplateError as error:
        raise SuspectAnswerError("the profile's template cannot be used") from error


@lru_cache(maxsize=1)
def _environment() -> "jinja2.Environment":
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # What is filled in is JSON already; escaping for HTML would break it.
    environment = ImmutableSandboxedEnvironment(autoescape=False, undefined=jinja2.StrictUndefined)
    environment.globals.clear()
    return environment
