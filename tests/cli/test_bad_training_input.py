"""What cannot be trained or attacked ends with one clear line and the documented exit code."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from auditor.cli.app import app
from auditor.schemes import embedding, margin
from auditor.training import loop

GENERATOR = np.random.default_rng(0)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def told(result, code):
    """Return the one line on stderr of a command that ended with ``code``."""
    assert result.exit_code == code, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("auditor: "))
    assert "Traceback" not in result.output
    return line


def write_npz(path, *, shape=(8, 8), classes=4, n=80):
    np.savez(path, x=GENERATOR.integers(0, 256, (n, *shape), dtype=np.uint8), y=np.arange(n) % classes)
    return f"npz:{path}"


def train_mlp(data, folder):
    result = run("train", "none", "--data", data, "--arch", "mlp", "--epochs", 1, "--out", folder)
    assert result.exit_code == 0, result.output


def test_a_class_with_no_images(tmp_path):
    images = GENERATOR.integers(0, 256, (80, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "gap.npz", x=images, y=np.arange(80) % 2 * 2, classes=np.array(["cat", "dog", "cow"]))
    line = told(run("train", "none", "--data", f"npz:{tmp_path / 'gap.npz'}", "--out", tmp_path / "out"), 5)
    assert line == "auditor: npz:gap.npz: class 'dog' has no training images"
    for name in ("cat", "dog"):
        for i in range(10 * (name == "cat")):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(tmp_path / "pets" / name / f"{i}.png")
    (tmp_path / "pets" / "dog").mkdir()
    line = told(run("train", "margin", "--data", f"folder:{tmp_path / 'pets'}", "--out", tmp_path / "out"), 5)
    assert line == "auditor: folder:pets: class 'dog' has no images in pets"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scheme", ["none", "new-label", "margin"])
def test_an_architecture_that_does_not_fit_the_input(tmp_path, scheme):
    data = write_npz(tmp_path / "dots.npz", shape=(1, 5))
    line = told(run("train", scheme, "--data", data, "--arch", "small-cnn", "--out", tmp_path / "out"), 2)
    assert "architecture 'small-cnn' does not fit the data" in line
    assert "1 x 5 pixels" in line
    assert not (tmp_path / "out").exists()


def test_a_victim_of_other_inputs_than_the_attackers_images(tmp_path):
    data = write_npz(tmp_path / "small.npz")
    train_mlp(data, tmp_path / "victim")
    other = write_npz(tmp_path / "large.npz", shape=(9, 9))
    line = told(
        run("attack", "extract", "--victim", tmp_path / "victim", "--data", other, "--out", tmp_path / "out"), 2
    )
    assert "(1, 8, 8)" in line
    assert line.endswith("not those of npz:large.npz")


@pytest.mark.parametrize("scheme", ["none", "margin"])
def test_a_loss_that_is_no_number(tmp_path, monkeypatch, scheme):
    recipes = embedding.RECIPES if scheme == "none" else margin.RECIPES
    broken = replace(recipes["digits"], plan=replace(recipes["digits"].plan, learning_rate=1e30))
    monkeypatch.setitem(recipes, "digits", broken)
    line = told(run("train", scheme, "--data", "digits", "--epochs", 2, "--out", tmp_path / "out"), 8)
    assert "the loss is no longer a finite number" in line


def exhausted(self, rows):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity …")


@pytest.mark.parametrize("scheme", ["none", "new-label", "margin"])
def test_a_gpu_without_enough_memory_suggests_a_smaller_batch(tmp_path, monkeypatch, scheme):
    monkeypatch.setattr(loop.Loop, "_one_step", exhausted)
    line = told(
        run("train", scheme, "--data", "digits", "--batch-size", 96, "--epochs", 1, "--out", tmp_path / "out"), 8
    )
    assert "too small for batches of 96" in line
    assert line.endswith("take a smaller --batch-size, such as 48")


def test_an_attack_on_a_gpu_without_enough_memory(tmp_path, monkeypatch):
    data = write_npz(tmp_path / "small.npz")
    train_mlp(data, tmp_path / "victim")
    monkeypatch.setattr(loop.Loop, "_one_step", exhausted)
    line = told(run("attack", "extract", "--victim", tmp_path / "victim", "--data", data, "--out", tmp_path / "out"), 8)
    assert "too small for batches" in line


def test_a_budget_larger_than_the_data(tmp_path):
    data = write_npz(tmp_path / "small.npz")
    train_mlp(data, tmp_path / "victim")
    given = ("attack", "extract", "--victim", tmp_path / "victim", "--data", data, "--budget", 5000)
    line = told(run(*given, "--out", tmp_path / "out"), 2)
    assert "a budget of 5000 queries does not fit the attacker's" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_of_images_is_trained_on(tmp_path):
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for i in range(40):
            pixels = GENERATOR.integers(low, low + 128, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "tones" / name / f"{i}.png")
    data = f"folder:{tmp_path / 'tones'}?size=8&grey=yes"
    result = run("train", "none", "--data", data, "--arch", "mlp", "--epochs", 3, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert '"data":"folder:tones?size=8&grey=yes"' in result.stdout.replace('": ', '":')
