"""Trees and networks of scikit-learn as suspects: the answers of the model itself, and no walk that leads astray."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomTreesEmbedding,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.tree._tree import Tree

from auditor.errors import SuspectLoadError
from auditor.suspects import open_suspect

RNG = np.random.default_rng(3)
TRAINED_ON = RNG.random((120, 16))
LABELS = (TRAINED_ON[:, 0] * 5).astype(int)
INPUTS = RNG.integers(0, 256, (9, 1, 4, 4), dtype=np.uint8)
ROWS = INPUTS.reshape(9, 16).astype(np.float32) / np.float32(255)


def network(solver):
    # Nothing is scheduled by a validation loss, so that few steps suffice and no warning follows.
    return MLPClassifier((6,), solver=solver, max_iter=400, tol=1e-2, random_state=0)


MODELS = {
    "tree": DecisionTreeClassifier(random_state=0),
    "forest": RandomForestClassifier(7, random_state=0),
    "extra trees": ExtraTreesClassifier(4, random_state=0),
    "bagging": BaggingClassifier(n_estimators=3, max_features=0.5, random_state=0),
    "boosting": AdaBoostClassifier(n_estimators=3, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=4, random_state=0),
    "network": network("adam"),
    "network by gradients": network("sgd"),
    "scaled forest": make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)),
    "scaled network": make_pipeline(MinMaxScaler(), network("adam")),
}


def ask(data, folder):
    (folder / "m.skops").write_bytes(data)
    with open_suspect(model=folder / "m.skops") as suspect:
        return suspect.query(INPUTS).reply


def refused(data, folder, match):
    with pytest.raises(SuspectLoadError, match=match) as caught:
        ask(data, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_the_answers_are_those_of_the_model(tmp_path, name):
    model = MODELS[name].fit(TRAINED_ON, LABELS)
    reply = ask(skops.io.dumps(model), tmp_path)
    np.testing.assert_array_equal([answer.scores for answer in reply.answers], model.predict_proba(ROWS))
    assert [answer.label for answer in reply.answers] == model.predict(ROWS).tolist()


def astray(**changes):
    """Return a tree classifier whose nodes were changed, as (name of the field, place) to value."""
    model = DecisionTreeClassifier(random_state=0).fit(TRAINED_ON, LABELS)
    old = model.tree_
    state = old.__getstate__()
    state["nodes"] = state["nodes"].copy()
    for name, (place, value) in changes.items():
        state["nodes"][name][place] = value
    new = Tree(old.n_features, old.n_classes, old.n_outputs)
    new.__setstate__(state)
    model.tree_ = new
    return model


@pytest.mark.parametrize(
    "change",
    [
        {"left_child": (0, 100_000)},
        {"right_child": (0, 100_000)},
        {"left_child": (0, 0)},
        {"right_child": (0, -1)},
        {"left_child": (0, -7)},
        {"feature": (0, 16)},
        {"feature": (0, -3)},
    ],
)
def test_a_tree_that_leads_astray_is_not_walked(tmp_path, change):
    model = astray(**change)
    refused(skops.io.dumps(model), tmp_path, "m.skops: a tree in it leads outside itself or its inputs")
    forest = RandomForestClassifier(3, random_state=0).fit(TRAINED_ON, LABELS)
    forest.estimators_[2].tree_ = model.tree_
    refused(skops.io.dumps(make_pipeline(StandardScaler().fit(TRAINED_ON), forest)), tmp_path, "leads outside")


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", 60_000), ("right", 0), ("feature_idx", 16), ("feature_idx", -1), ("is_categorical", 1)],
)
def test_a_histogram_tree_that_leads_astray_is_not_walked(tmp_path, field, value):
    model = HistGradientBoostingClassifier(max_iter=2, random_state=0).fit(TRAINED_ON, LABELS)
    model._predictors[1][0].nodes[field][0] = value
    refused(skops.io.dumps(model), tmp_path, "leads outside itself or its inputs, or divides by categories")


def claiming(model, n_nodes):
    """Return the file of a tree that claims another number of nodes than it brings."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(model))) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                count = found(schema, "node_count")
                assert count["content"] == str(model.tree_.node_count)
                # Equal numbers share one object, which is stated where it comes first.
                count["content"], count["__id__"] = str(n_nodes), 1
                content = json.dumps(schema).encode()
            new.writestr(name, content)
    return changed.getvalue()


def test_a_wrong_number_of_nodes_is_cut_to_those_there_are_or_refused(tmp_path):
    model = DecisionTreeClassifier(random_state=0).fit(TRAINED_ON, LABELS)
    reply = ask(claiming(model, 1_000_000), tmp_path)
    np.testing.assert_array_equal([answer.scores for answer in reply.answers], model.predict_proba(ROWS))
    for n_nodes in (3, 0, -5):
        refused(claiming(model, n_nodes), tmp_path, "leads outside")


def found(value, name):
    """Return what a nested JSON value holds under a name."""
    if isinstance(value, dict) and name in value:
        return value[name]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((hit for item in items if (hit := found(item, name)) is not None), None)


def narrow():
    return DecisionTreeClassifier(random_state=0).fit(TRAINED_ON[:, :4], LABELS)


def test_trees_whose_inputs_nobody_checks_are_not_walked(tmp_path):
    # The forest would check rows against its first tree, and hand them to the others as they are.
    forest = RandomForestClassifier(3, random_state=0).fit(TRAINED_ON[:, :4], LABELS)
    forest.estimators_[2] = DecisionTreeClassifier(random_state=0).fit(TRAINED_ON, LABELS)
    refused(skops.io.dumps(forest), tmp_path, "forest in it is not made of trees over the same inputs")
    forest.estimators_[2] = LogisticRegression().fit(TRAINED_ON[:, :4], LABELS)
    refused(skops.io.dumps(forest), tmp_path, "forest in it is not made of trees")
    wide = DecisionTreeClassifier(random_state=0).fit(TRAINED_ON, LABELS)
    wide.n_features_in_ = 4
    refused(skops.io.dumps(wide), tmp_path, "leads outside itself or its inputs")
    del wide.n_features_in_
    refused(skops.io.dumps(wide), tmp_path, "cannot be put together")
    in_training = HistGradientBoostingClassifier(max_iter=1).fit(TRAINED_ON, LABELS)
    in_training._in_fit = True
    refused(skops.io.dumps(in_training), tmp_path, "not one that was fitted")


def test_nothing_stored_takes_the_place_of_a_method(tmp_path):
    model = narrow()
    model._validate_X_predict = np.negative
    refused(skops.io.dumps(model), tmp_path, "leads outside itself")
    forest = RandomForestClassifier(2, random_state=0).fit(TRAINED_ON, LABELS)
    forest._validate_X_predict = np.negative
    refused(skops.io.dumps(forest), tmp_path, "forest in it is not made of trees")


def test_trees_elsewhere_are_refused(tmp_path):
    stray = LogisticRegression().fit(TRAINED_ON, LABELS)
    stray.tree_ = narrow().tree_
    refused(skops.io.dumps(stray), tmp_path, "holds a tree outside of a classifier")
    hidden = LogisticRegression().fit(TRAINED_ON, LABELS)
    hidden.kept = {"in": [np.array([narrow().tree_], dtype=object)]}
    refused(skops.io.dumps(hidden), tmp_path, "holds a tree outside of a classifier")
    for inner in (DecisionTreeRegressor(), RandomTreesEmbedding(2)):
        hidden.kept = inner.fit(TRAINED_ON, LABELS)
        refused(skops.io.dumps(hidden), tmp_path, "holds a tree outside|not made of trees")
    boosted = GradientBoostingClassifier(n_estimators=2).fit(TRAINED_ON, LABELS)
    refused(skops.io.dumps(boosted), tmp_path, "gradient boosting is opened in its histogram form only")


def test_other_types_are_refused_by_name_also_beside_trusted_ones(tmp_path):
    model = KNeighborsClassifier(algorithm="kd_tree").fit(TRAINED_ON, LABELS)
    refused(
        skops.io.dumps(model), tmp_path, r"not trusted, which might run code: .*sklearn\.neighbors\._kd_tree\.KDTree"
    )
    mixed = narrow()
    mixed.kept = Path("a")
    with pytest.raises(SuspectLoadError) as caught:
        ask(skops.io.dumps(mixed), tmp_path)
    assert "pathlib" in str(caught.value)
    assert "Tree" not in str(caught.value)
