import pytest

from auditor.errors import UsageError
from auditor.study.config import read_config
from auditor.study.runner import plan_trials
from auditor.study.trials import Role

WHOLE = """
[study]
name = "try"
data = "digits"
seeds = [1, 2]

[[scheme]]
name = "new-label"

[[scheme]]
name = "new-label"
label = "new-label, weak"
settings = { beta = 0.2 }

[[attack]]
name = "prune"
strength = 0.5
settings = { rate = 0.5 }

[innocents]
seeds = [100, 101, 102]
"""


def written(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_every_scheme_and_seed_meets_every_suspect(tmp_path):
    trials = plan_trials(read_config(written(tmp_path, WHOLE)))
    assert len(trials) == 2 * 2 * (1 + 1 + 3)
    assert len({trial.key for trial in trials}) == len(trials)
    assert sum(trial.role is Role.INNOCENT for trial in trials) == 12


def test_a_label_changes_no_key_and_a_setting_changes_it(tmp_path):
    keys = [trial.key for trial in plan_trials(read_config(written(tmp_path, WHOLE)))]
    renamed = WHOLE.replace('label = "new-label, weak"', 'label = "weak"').replace("strength = 0.5", "strength = 1.0")
    assert [trial.key for trial in plan_trials(read_config(written(tmp_path, renamed)))] == keys
    changed = WHOLE.replace("rate = 0.5 }", "rate = 0.6 }")
    differs = [a != b.key for a, b in zip(keys, plan_trials(read_config(written(tmp_path, changed))), strict=True)]
    assert sum(differs) == 4, "one pruned copy for each scheme and seed"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "try"', 'nmae = "try"', "study.name"),
        ("seeds = [1, 2]", "seeds = []", "study.seeds"),
        ("seeds = [1, 2]", 'seeds = ["1"]', "study.seeds.0"),
        ("seeds = [100, 101, 102]", "seeds = [1]", "shares its training seed"),
        ('label = "new-label, weak"', "", "give one a label"),
        ("rate = 0.5 }", "rate = [0.5] }", "attack.0.settings.rate"),
        ("[innocents]", "[innocent]", "innocent"),
        ('data = "digits"', "data = digits", "not TOML"),
        ("[study]", "[study]\nalpha = 1.5", "study.alpha"),
    ],
)
def test_a_bad_field_is_named_on_one_line(tmp_path, old, new, told):
    assert old in WHOLE
    with pytest.raises(UsageError) as caught:
        read_config(written(tmp_path, WHOLE.replace(old, new, 1)))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "nothing.toml")
