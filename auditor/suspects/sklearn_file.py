"""A suspect that is a scikit-learn model saved by skops: a format that constructs known types and runs no code.

Beyond the types that skops trusts of itself, those of :data:`TRUSTED` are made: trees and networks hold them. The
compiled code that walks a tree believes its numbers, so that every tree is looked through before anything is asked:
children come after their parent and inside the tree, features inside the row.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from auditor.canonical import sha256_hex
from auditor.errors import MissingPartError, SuspectAnswerError, SuspectLoadError
from auditor.evidence.reading import Reading, printable
from auditor.records import Inputs
from auditor.suspects.base import (
    LOCAL_BATCH,
    Description,
    Encoding,
    Layout,
    LocalSuspect,
    encode_tensor,
    read_model_file,
)

if TYPE_CHECKING:
    from sklearn.tree._tree import Tree

TRUSTED: Mapping[str, str] = {
    "sklearn.tree._tree.Tree": "nodes of a decision tree: arrays, looked through before use",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": "the same for histogram boosting",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": "plain numbers of a training that is over",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer": "plain numbers of a training that is over",
}
"""Types of scikit-learn itself that skops leaves to its user's judgement, each with what it is."""

_TREE = "sklearn.tree._tree.Tree"
_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
_LEAF = -1


class SklearnSuspect(LocalSuspect):
    """A scikit-learn classifier in a ``.skops`` file; it gets one row of numbers per input.

    Args:
        path: the file.
        encoding: how pixels become rows; None divides by 255.
        reading: maps the model's own labels to those of the task.
        classes: names of the task's classes in label order, for models that answer with names.
        batch_size: most inputs per question.

    Raises:
        SuspectLoadError: not such a file, one with types that are not trusted, or a tree that leads outside itself.
        MissingPartError: skops is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoding: Encoding | None = None,
        reading: Reading | None = None,
        classes: tuple[str, ...] = (),
        batch_size: int = LOCAL_BATCH,
    ) -> None:
        try:
            import skops.io
        except ImportError as error:
            raise MissingPartError(
                "opening a scikit-learn model needs skops; install the extra [sklearn] (pip install skops)"
            ) from error
        data = read_model_file(path)
        try:
            unknown = skops.io.get_untrusted_types(data=data)
        except (BadZipFile, KeyError, ValueError, TypeError, RecursionError, AttributeError, OSError) as error:
            raise SuspectLoadError(f"{path.name}: not a model that skops opens") from error
        if not set(map(str, unknown)) <= set(TRUSTED):
            told = printable(", ".join(sorted(set(map(str, unknown)) - set(TRUSTED))), limit=200)
            raise SuspectLoadError(f"{path.name}: holds types that are not trusted, which might run code: {told}")
        try:
            # Nothing beyond skops' own list and the one above is trusted.
            model = skops.io.loads(data, trusted=sorted(set(map(str, unknown)) & set(TRUSTED)))
        except Exception as error:
            raise SuspectLoadError(f"{path.name}: cannot be put together ({type(error).__name__})") from error
        if not hasattr(model, "predict") or getattr(model, "classes_", None) is None:
            raise SuspectLoadError(f"{path.name}: not a classifier that was fitted")
        try:
            problem = _tree_problem(model)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            raise SuspectLoadError(f"{path.name}: cannot be put together ({type(error).__name__})") from error
        if problem:
            raise SuspectLoadError(f"{path.name}: {problem}")
        self._model, self._name, self._sha256 = model, path.name, sha256_hex(data)
        self._encoding = encoding or Encoding(layout=Layout.FLAT, divide=255.0)
        self._classes = np.asarray(model.classes_)
        if reading is None and self._classes.dtype.kind in "UO":
            names = {} if any(name.isdigit() for name in classes) else {name: i for i, name in enumerate(classes)}
            reading = Reading(answers="answers", label_map=names)
        super().__init__(reading=reading, batch_size=batch_size)

    def describe(self) -> Description:
        """Return the file's name, digest and number of classes."""
        suspect = self._suspect_id(name=self._name, sha256=self._sha256)
        return Description(suspect=suspect, extra={"model": printable(type(self._model).__name__)})

    def _outputs(self, inputs: Inputs) -> npt.NDArray[np.generic]:
        rows = encode_tensor(inputs, self._encoding).reshape(len(inputs), -1)
        try:
            # Columns of probabilities are labels only where the classes are the numbers from 0 on.
            if hasattr(self._model, "predict_proba") and np.array_equal(self._classes, np.arange(len(self._classes))):
                return np.asarray(self._model.predict_proba(rows))
            return np.asarray(self._model.predict(rows))
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise SuspectAnswerError(f"{self._name}: the model does not take these inputs") from error


def _tree_problem(model: object) -> str:
    """Return why compiled code must not walk the trees inside a model, or empty text."""
    parts = list(_parts(model))
    trees = [part for part in parts if _type_name(part) in (_TREE, _PREDICTOR)]
    if not trees:
        return ""
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

    if any(isinstance(part, BaseGradientBoosting) for part in parts):
        # Its prediction writes where the shape of a table of trees says, without asking how long the result is.
        return "gradient boosting is opened in its histogram form only; export this model to ONNX"
    walked: set[int] = set()
    for part in parts:
        if isinstance(part, DecisionTreeClassifier | ExtraTreeClassifier) and hasattr(part, "tree_"):
            walked.add(id(part.tree_))
            if not (_is_plain(part) and _holds_together(part.tree_, n_features=part.n_features_in_)):
                return "a tree in it leads outside itself or its inputs"
        elif isinstance(part, BaseForest):
            # A forest checks the row for its first tree alone.
            members = {(type(each), each.n_features_in_) for each in part.estimators_}
            if not _is_plain(part) or len(members) != 1 or not {kind for kind, _ in members} <= {
                DecisionTreeClassifier, ExtraTreeClassifier,
            }:  # fmt: skip
                return "a forest in it is not made of trees over the same inputs"
        elif isinstance(part, BaseHistGradientBoosting):
            # While it is in training it takes rows as they are.
            if not _is_plain(part) or getattr(part, "_in_fit", False):
                return "a boosted model in it is not one that was fitted"
            for each in (each for stage in part._predictors for each in stage):
                walked.add(id(each))
                if not _is_plain(each) or not _leads_inside(each.nodes, n_features=part.n_features_in_):
                    return "a tree in it leads outside itself or its inputs, or divides by categories"
    return "" if all(id(tree) in walked for tree in trees) else "holds a tree outside of a classifier"


def _parts(model: object) -> Iterator[object]:
    """Yield a model and all that is reachable from it, each once."""
    seen: dict[int, object] = {}
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, str | bytes | int | float | type | None):
            continue
        # Kept, so that no later object gets the number of one that is gone.
        seen[id(part)] = part
        yield part
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif isinstance(part, np.ndarray) and part.dtype.hasobject:
            waiting += part.ravel().tolist()
        waiting += getattr(part, "__dict__", {}).values()
        waiting += [getattr(part, name, None) for name in ("__self__", "func", "args", "keywords")]


def _type_name(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _is_plain(part: object) -> bool:
    """Return whether nothing stored in an object takes the place of a method of its type."""
    return not any(callable(getattr(type(part), name, None)) for name in vars(part))


def _holds_together(tree: "Tree", *, n_features: object) -> bool:
    if type(n_features) is not int or tree.n_features != n_features or not 0 < tree.node_count <= tree.capacity:
        return False
    inner = tree.children_left != _LEAF
    return _descends(inner, (tree.children_left, tree.children_right), tree.feature, n_features=n_features)


def _leads_inside(nodes: npt.NDArray[np.void], *, n_features: object) -> bool:
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    if type(n_features) is not int or nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
        return False
    inner = nodes["is_leaf"] == 0
    children = (nodes["left"].astype(np.int64), nodes["right"].astype(np.int64))
    return not nodes["is_categorical"].any() and _descends(inner, children, nodes["feature_idx"], n_features=n_features)


def _descends(
    inner: npt.NDArray[np.bool_],
    children: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    features: npt.NDArray[np.int64],
    *,
    n_features: int,
) -> bool:
    """Return whether every inner node looks at a feature that exists and has both children after it."""
    places = np.flatnonzero(inner)
    after = all(((side[places] > places) & (side[places] < len(inner))).all() for side in children)
    return after and bool(((features[places] >= 0) & (features[places] < n_features)).all())
