import dataclasses
import json
import re
from pathlib import Path

import pytest

from auditor.attacks import ATTACKS, build_attack, catalogue
from auditor.attacks.base import Attack, attack_class
from auditor.attacks.extract import Extract, Taught
from auditor.attacks.prune import Prune
from auditor.attacks.settings import setting_names
from auditor.errors import UsageError
from auditor.training import Device, TrainingPlan


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_every_preset_is_built_and_its_record_builds_it_again(name):
    preset = catalogue()[name]
    attack = preset()
    assert isinstance(attack, attack_class(preset.attack))
    record = json.loads(json.dumps(dict(attack.settings)))
    assert build_attack(attack.name, record) == attack
    assert set(preset.settings) <= set(record)


def test_every_attack_has_a_preset_and_is_named_like_its_entry():
    assert {name.partition("/")[0] for name in catalogue()} == set(ATTACKS)
    assert all(attack_class(name).name == name for name in ATTACKS)


def test_the_readme_lists_every_attack_with_its_presets():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", readme, re.MULTILINE)
    shown = {f"{name}/{preset}" for name, cell in rows if name in ATTACKS for preset in re.findall(r"`([^`]+)`", cell)}
    assert shown == set(catalogue())


def test_published_settings():
    margin = catalogue()["extract/margin-soft"]().plan
    wanted = {"epochs": 200, "batch_size": 128, "learning_rate": 0.1, "momentum": 0, "weight_decay": 1e-4, "shift": 4}
    assert {name: getattr(margin, name) for name in wanted} == wanted
    distill = catalogue()["distill/margin"]()
    assert (distill.mix, distill.temperature, distill.temperature_squared) == (0.7, 1, False)
    assert [catalogue()[f"finetune/{n}"]().fresh_head for n in ("ftll", "ftal", "rtll", "rtal")] == [0, 0, 1, 1]
    assert catalogue()["adversarial/madry"]().radius == 8 / 255


def test_settings_come_before_the_presets():
    attack = build_attack("extract", {"epochs": 2, "device": "cpu", "budget": 7}, preset="rounded")
    assert isinstance(attack, Extract)
    assert (attack.taught, attack.decimals, attack.budget) == (Taught.ROUNDED, 1, 7)
    assert (attack.plan.epochs, attack.plan.device) == (2, Device.CPU)


def test_a_plan_that_may_be_absent_is_absent_without_epochs():
    assert build_attack("prune", {"rate": "0.25"}) == Prune(rate=0.25)
    assert build_attack("prune", {"epochs": 0, "batch_size": 9}, preset="channels").plan is None
    assert build_attack("prune", {"epochs": 3}).plan.epochs == 3


def test_settings_of_a_plan_stand_beside_the_attacks_own():
    names = setting_names(Prune)
    assert {field.name for field in dataclasses.fields(TrainingPlan)} < set(names)
    assert "plan" not in names


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("noise", {"rate": 0.5}, "'noise' has no setting 'rate'; it has: scale, seed"),
        ("noise", {"scale": "much"}, "'scale' must be a number, not 'much'"),
        ("noise", {"scale": True}, "'scale' must be a number"),
        ("noise", {"scale": None}, "'scale' must be a number"),
        ("noise", {"scale": "nan"}, "'scale' must be a number"),
        ("noise", {"seed": 1.5}, "'seed' must be a whole number"),
        ("noise", {"seed": True}, "'seed' must be a whole number"),
        ("noise", {"scale": 11}, r"lies in \[0, 10\]"),
        ("finetune", {"fresh_head": 1}, "'fresh_head' must be true or false"),
        ("finetune", {"layers": "first"}, "'layers' must be one of all, last"),
        ("finetune", {"epochs": -1}, "at least one epoch"),
        ("extract", {"architecture": 3}, "'architecture' must be text"),
        ("extract", {"learning_rate": 0}, "positive learning rate"),
        ("extract", {"budget": 0}, "at least one query"),
        ("extract", {"k": 0}, "k is at least 1"),
        ("distill", {"mix": 1.1}, "mix of distillation"),
        ("prune", {"last_only": True}, "only channels"),
        ("quantize", {"bits": 1}, "between 2 and 16"),
        ("preprocess", {"strength": 1}, "'preprocess' needs the setting 'kind'"),
        ("answers", {"kind": "top-k", "value": 0}, "top-k takes a whole number"),
        ("ensemble", {"n_others": 0}, "between 1 and"),
        ("adversarial", {"step": 0}, "radius and clean share"),
        ("overwrite", {"beta": 0}, "beta lies in"),
        ("hypnosis", {}, "unknown attack 'hypnosis'; known: adversarial"),
    ],
)
def test_wrong_settings_are_one_line_that_names_the_field(name, settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_attack(name, settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(UsageError, match="no preset 'x'; it has: light, strong"):
        build_attack("noise", {}, preset="x")


def test_a_plug_in_without_settings_records_none():
    class Plain(Attack):
        name = "plain"

        def _apply(self, victim, own, progress):
            return victim

    assert dict(Plain().settings) == {}
    assert setting_names(Plain) == ()
