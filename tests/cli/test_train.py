import json
import stat

import authorities
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from auditor.cli.attack import attack
from auditor.cli.train import train
from auditor.errors import SuspectLoadError, TrainingError, UsageError
from auditor.evidence.keyset import open_sealed
from auditor.evidence.signing import SigningKey
from auditor.evidence.timestamps import TokenState, verify_tokens
from auditor.models import labels_of, load_model

app = typer.Typer()
app.add_typer(train, name="train")
app.command("attack")(attack)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    # About one training in eight misses half a percent of 547 images; the way out is another seed, as in the demo.
    for seed in range(4):
        folder = tmp_path_factory.mktemp("train") / "owner"
        result = run("train", "new-label", "--data", "digits", "--seed", seed, "--out", folder)
        if result.exit_code != 8:
            break
    assert result.exit_code == 0, result.output
    return folder, result


def test_owner_folder_is_complete_and_consistent(owner):
    folder, result = owner
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors",
        "model.json",
        "k.npz",
        "k.seal.json",
        "k.commit.json",
        "train.json",
        "twin",
        "owner.key.pem",
        "owner.pub.pem",
    }
    record = json.loads((folder / "train.json").read_bytes())
    opened = open_sealed(folder / "k.npz", seal_envelope=(folder / "k.seal.json").read_bytes())
    loaded = load_model(folder)
    assert opened.seal.model_sha256 == loaded.description.weights_sha256 == record["model_sha256"]
    assert loaded.description.n_outputs == 11
    assert load_model(folder / "twin").description.n_outputs == 10
    assert np.mean(labels_of(loaded.network, opened.keys.inputs[:120]) == 10) >= 0.8
    assert float(record["measured"]["key_rate"]["rate"]) == opened.seal.protocol.forecast_rate
    assert record["measured"]["misses"] == []
    assert "clean accuracy" in result.stdout


def test_secrets_are_readable_by_their_owner_only_and_never_printed(owner):
    folder, result = owner
    for name in ("owner.key.pem", "k.npz"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    keys = open_sealed(folder / "k.npz").keys
    key = SigningKey.from_pem((folder / "owner.key.pem").read_bytes())
    for secret in (keys.secret_seed.hex(), keys.salt_seed.hex(), "PRIVATE KEY"):
        assert secret not in result.output
        assert secret not in (folder / "train.json").read_text()
        assert secret not in (folder / "k.seal.json").read_text()
    assert key.fingerprint == json.loads((folder / "train.json").read_bytes())["owner_fingerprint"]


def test_a_filled_folder_is_refused_and_left_alone(owner):
    folder, _ = owner
    before = (folder / "train.json").read_bytes()
    result = run("train", "new-label", "--data", "digits", "--out", folder)
    assert isinstance(result.exception, UsageError)
    assert (folder / "train.json").read_bytes() == before


def test_missed_targets_are_written_and_then_reported(tmp_path):
    result = run("train", "wrong-label", "--data", "digits", "--out", tmp_path / "o", "--epochs", 1, "--no-twin")
    assert isinstance(result.exception, TrainingError)
    assert result.exception.exit_code == 8
    record = json.loads((tmp_path / "o" / "train.json").read_bytes())
    assert record["measured"]["misses"]
    assert not (tmp_path / "o" / "twin").exists()
    assert open_sealed(tmp_path / "o" / "k.npz").seal.protocol.scheme == "wrong-label"


def test_same_seed_draws_another_secret(tmp_path):
    roots = set()
    for name in ("a", "b"):
        run("train", "wrong-label", "--data", "digits", "--out", tmp_path / name, "--epochs", 1, "--seed", 3)
        roots.add(open_sealed(tmp_path / name / "k.npz").seal.merkle_root)
    assert len(roots) == 2


def test_given_owner_key_signs_and_is_not_copied(tmp_path):
    key = SigningKey.generate()
    key.write_pem(tmp_path / "mine.pem")
    out = tmp_path / "o"
    run("train", "wrong-label", "--data", "digits", "--out", out, "--epochs", 1, "--owner-key", tmp_path / "mine.pem")
    assert open_sealed(out / "k.npz").seal.owner_public_key == key.public.hex()
    assert not (out / "owner.key.pem").exists()


def test_unmarked_training_writes_a_model_and_no_keys(tmp_path):
    result = run("train", "none", "--data", "digits", "--out", tmp_path / "n", "--epochs", 2, "--json")
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "n").iterdir()} == {"model.safetensors", "model.json", "train.json"}
    assert json.loads(result.stdout)["measured"]["scheme"] == "none"
    assert load_model(tmp_path / "n").description.classes == tuple("0123456789")


@pytest.mark.parametrize(
    "options",
    [
        ("--data", "imagenet"),
        ("--data", "digits", "--arch", "transformer"),
        ("--data", "digits", "--beta", "strong"),
        ("--data", "digits", "--beta", "-1"),
        ("--data", "digits", "--alpha-keys", "0"),
        ("--data", "digits", "--owner-key", "nowhere.pem"),
    ],
)
def test_usage_errors_leave_no_folder(tmp_path, options):
    result = run("train", "new-label", "--out", tmp_path / "o", *options)
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "o").exists()


def test_attacks_write_a_surrogate_that_still_carries_the_mark(owner, tmp_path):
    folder, _ = owner
    keys = open_sealed(folder / "k.npz").keys.inputs[:120]
    for arguments in (("finetune", "--epochs", 5), ("prune", "--rate", "0.5"), ("prune", "--rate", 0.5, "--epochs", 2)):
        out = tmp_path / "-".join(str(a) for a in arguments)
        result = run("attack", *arguments, "--victim", folder, "--data", "digits", "--out", out, "--json")
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        assert record == json.loads((out / "attack.json").read_bytes())
        assert float(record["accuracy_after"]) > 0.95
        assert np.mean(labels_of(load_model(out).network, keys) == 10) > 0.5


def test_attack_refuses_what_it_cannot_use(owner, tmp_path):
    folder, _ = owner
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    base = ("--data", "digits")
    for error, arguments in (
        (UsageError, ("prune", "--victim", folder, *base, "--out", tmp_path / "full")),
        (UsageError, ("finetune", "--victim", folder, *base, "--out", tmp_path / "o", "--epochs", 0)),
        (SuspectLoadError, ("prune", "--victim", tmp_path / "none", *base, "--out", tmp_path / "o")),
    ):
        assert isinstance(run("attack", *arguments).exception, error)
    assert not (tmp_path / "o").exists()


def test_a_time_authority_stamps_the_seal(tmp_path):
    authority = authorities.Authority(tmp_path / "tsa")
    folder = tmp_path / "o"
    with authorities.serving(authority.reply) as url:
        run("train", "wrong-label", "--data", "digits", "--out", folder, "--epochs", 1, "--no-twin", "--tsa", url)
    (finding,) = verify_tokens(
        {"k.seal.1.tsr": (folder / "k.seal.1.tsr").read_bytes()},
        data=(folder / "k.seal.json").read_bytes(),
        roots=authority.roots,
    )
    assert finding.state is TokenState.VERIFIED


def test_without_randomness_the_seal_says_so_and_the_generation_is_repeated(owner):
    from auditor.casefile import open_keyset
    from auditor.evidence.generation import rederive

    folder, _ = owner
    opened = open_keyset(folder / "k.npz", seal=folder / "k.seal.json", owner_fingerprint=None)
    assert opened.seal.randomness_source.value == "none"
    assert opened.seal.protocol.grinding_log2 == 64
    assert "no public randomness" in rederive(opened.keys, opened.seal).summary


def test_commit_first_then_train_with_the_judges_nonce(tmp_path):
    from auditor.evidence.generation import rederive

    data = ("train", "new-label", "--data", "digits", "--epochs", 1)
    done = run(*data, "--out", tmp_path / "c", "--commit-only")
    assert done.exit_code == 0, done.output
    assert {p.name for p in (tmp_path / "c").iterdir()} == {
        "k.commit.json", "k.draft.npz", "owner.key.pem", "owner.pub.pem",
    }  # fmt: skip
    assert stat.S_IMODE((tmp_path / "c" / "k.draft.npz").stat().st_mode) == 0o600
    go_on = ("--commitment", tmp_path / "c", "--out", tmp_path / "o", "--no-twin")
    other = run(*data, *go_on, "--beta", "0.2", "--judge-nonce", "ab" * 32)
    assert isinstance(other.exception, UsageError)
    assert "committed to" in str(other.exception)
    (tmp_path / "o").rmdir()
    done = run(*data, *go_on, "--judge-nonce", "ab" * 32)
    # After one pass over the data nearly every draw of the owner's key misses the target; all is written either way.
    assert done.exit_code == 0 or isinstance(done.exception, TrainingError)
    opened = open_sealed(tmp_path / "o" / "k.npz")
    assert (tmp_path / "o" / "k.commit.json").read_bytes() == (tmp_path / "c" / "k.commit.json").read_bytes()
    assert opened.seal.protocol.randomness == "ab" * 32
    assert opened.seal.protocol.grinding_log2 == 0
    assert rederive(opened.keys, opened.seal).source.value == "nonce"


def test_randomness_that_makes_no_sense(tmp_path):
    data = ("train", "new-label", "--data", "digits", "--out", tmp_path / "o")
    (tmp_path / "token").write_bytes(b"token over something else")
    for more in (
        ("--beacon", "ab"),
        ("--beacon", "zz" * 16),
        ("--beacon", "ab" * 16, "--judge-nonce", "ab" * 16),
        ("--commit-only", "--beacon", "ab" * 16),
        ("--commitment", tmp_path),
        ("--commitment", tmp_path, "--beacon", "ab" * 16),
        ("--randomness-file", tmp_path / "none"),
        ("--recipient", "age1", "--recipient", "x", "--beacon", "a"),
    ):
        assert isinstance(run(*data, *more).exception, UsageError), more
    assert not (tmp_path / "o").exists() or not (tmp_path / "o" / "k.npz").exists()
