from importlib.metadata import EntryPoint

import pytest

from auditor import plugins
from auditor.attacks.base import Attack, attack_class
from auditor.attacks.prune import Prune
from auditor.errors import UsageError
from auditor.schemes.base import TrainedScheme, scheme_class


@pytest.fixture
def registered(monkeypatch):
    """Register entry points without installing a package."""
    points = [
        EntryPoint(name="mine", value="auditor.attacks.prune:Prune", group="auditor.attacks"),
        EntryPoint(name="gone", value="no_such_module:Thing", group="auditor.attacks"),
        EntryPoint(name="else", value="auditor.draws:Secret", group="auditor.attacks"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [p for p in points if p.group == group])


@pytest.mark.parametrize("name", ["finetune", "prune"])
def test_built_in_attacks_are_found(name):
    assert issubclass(attack_class(name), Attack)


@pytest.mark.parametrize("name", ["new-label", "wrong-label"])
def test_built_in_schemes_are_found(name):
    assert issubclass(scheme_class(name), TrainedScheme)


def test_another_packages_attack_is_found(registered):
    assert attack_class("mine") is Prune


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "unknown attack 'nonsense'; known: adversarial, answers, distill"),
        ("gone", "cannot be loaded"),
        ("else", "is not"),
    ],
)
def test_what_cannot_be_used_is_one_line(registered, name, message):
    with pytest.raises(UsageError, match=message):
        attack_class(name)
