"""Flags of train.py: wrong ones get one line each; unset ones follow the data set.

All of it runs in this process, for it ends before training.
"""

import os
import pathlib
import signal

import numpy as np
import pytest

import models
import train
from keras_es import datasets
from keras_es.datasets import tfds
from keras_es.runs import settings, workdir


@pytest.fixture
def keep_signals():
    """Puts back the handler that train.main sets."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def fail(capsys, tmp_path, monkeypatch, keep_signals):
    """Runs train.main, expects an error, and returns (exit code, its one line)."""
    monkeypatch.chdir(tmp_path)

    def main(*flags):
        code = train.main(["train.py", *flags])
        (line,) = capsys.readouterr().err.splitlines()
        return code, line

    return main


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--sparsty=0.5"], ["sparsty", "sparsity"]),
        (["--sparsity=lots"], ["--sparsity=lots"]),
        (["digits"], ["'digits'"]),
        (["--sparsity=1"], ["[0, 1)", "--sparsity=1.0"]),
        (["--sparsity=-0.1"], ["[0, 1)", "--sparsity=-0.1"]),
        (["--sparsity=nan"], ["[0, 1)", "nan"]),
        (["--model=lenett"], ["unknown model", "lenet", "lenett"]),
        (["--mask_optimizer=guided"], ["unknown mask optimizer", "guided_es"]),
        (["--mask_optimizer=xyz"], ["unknown mask optimizer", "'static'", "xyz"]),
        (["--optimizer=adamm"], ["unknown optimizer", "adam"]),
        (["--allocation=erc"], ["unknown allocation", "erk"]),
        (["--jit_compile=maybe"], ["unknown jit compile", "auto"]),
        (["--strategy=miror"], ["unknown strategy", "mirrored"]),
        (["--virtual_devices=0", "--strategy=mirrored"], ["at least 1"]),
        (["--virtual_devices=2"], ["--strategy=mirrored", "--virtual_devices=2"]),
        (["--tpu=mine"], ["--strategy=tpu", "--tpu=mine"]),
        (["--block_shape=16"], ["ROWSxCOLUMNS", "--block_shape=16"]),
        (["--block_shape=0x4"], ["ROWSxCOLUMNS", "--block_shape=0x4"]),
        (["--block_shape=7x1"], ["dense", "(64, 256)", "7"]),
        (["--learning_rate=0"], ["above 0", "--learning_rate=0.0"]),
        (["--epochs=0"], ["at least 1", "--epochs=0"]),
        (["--seed=-1"], ["--seed=-1"]),
        (["--population_size=3"], ["even", "--population_size=3"]),
        (["--mask_optimizer=none", "--sparsity=0.5"], ["needs 0", "0.5"]),
        (
            ["--batch_size=60", "--population_size=8"],
            ["a batch that the population cannot share", "60", "8"],
        ),
        (
            ["--batch_size=4", "--mask_optimizer=snes", "--population_size=8"],
            ["a batch that the population cannot share"],
        ),
        (["--dataset=mnits"], ["unknown data set", "mnist", "'mnits'"]),
    ],
)
def test_wrong_flags_get_one_line_and_code_2(fail, flags, parts):
    code, line = fail(*flags)
    assert code == 2
    assert line.startswith("train.py: ")
    for part in parts:
        assert part in line
    assert list(pathlib.Path().iterdir()) == []


def test_missing_data_set_is_code_1(fail, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no address")

    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(tfds.socket, "getaddrinfo", refuse)
    code, line = fail("--dataset=kmnist", f"--data_dir={tmp_path}")
    assert code == 1 and "'kmnist' is not at" in line


def test_workdir_that_cannot_be_made_is_code_1(fail):
    pathlib.Path("file").write_text("not a folder")
    code, line = fail("--workdir=file/run")
    assert code == 1 and "cannot write file/run" in line


def test_strange_workdir_is_left_alone(fail):
    folder = pathlib.Path("other/saved_model")
    folder.mkdir(parents=True)
    code, line = fail("--workdir=other")
    assert code == 2 and "other has saved_model but no config.json" in line
    assert [p.name for p in folder.parent.iterdir() if p.name != ".lock"] == [
        "saved_model"
    ]


def test_other_configuration_is_refused_by_the_flag(fail):
    _, config = resolved("--epochs=3")
    with workdir.Workdir("run", config):
        pass
    code, line = fail("--workdir=run", "--epochs=3", "--seed=7", "--batch_size=128")
    assert code == 2
    assert "--seed=7 (it has 0)" in line and "--batch_size=128 (it has 64)" in line
    assert "--epochs" not in line


def test_damaged_config_is_named(fail):
    folder = pathlib.Path("run")
    folder.mkdir()
    (folder / "config.json").write_text("{")
    code, line = fail("--workdir=run")
    assert code == 2 and "cannot read run/config.json" in line


def test_workdir_in_use_is_refused(fail):
    with workdir.Workdir("busy", {}):
        code, line = fail("--workdir=busy")
    assert code == 2 and "in use by another process" in line


def test_help_has_one_line_for_each_of_at_most_20_flags(capsys):
    assert train.main(["train.py", "--help"]) == 0
    lines = capsys.readouterr().out.split("Flags:\n")[1].splitlines()
    assert len(lines) <= 20 and all(line.startswith("  --") for line in lines)


def resolved(*flags, shape=(8, 8, 1), name="digits"):
    images = np.zeros((4, *shape), "uint8")
    labels = np.zeros(4, "int32")
    data = datasets.ImageDataset(name, images, labels, images, labels, 10)
    f = train.parse(["train.py", *flags])
    settings.check(f, list(models.ARCHITECTURES))
    config = settings.resolve(f, data)
    return settings.workdir_name(f, config), config


@pytest.mark.parametrize(
    ("name", "shape", "model", "augment"),
    [
        ("digits", (8, 8, 1), "mlp", False),
        ("mnist", (28, 28, 1), "lenet", False),
        ("cifar10", (32, 32, 3), "cifar_convnet", True),
        ("svhn_cropped", (32, 32, 3), "cifar_convnet", False),
    ],
)
def test_defaults_follow_the_data_set(name, shape, model, augment):
    _, config = resolved(f"--dataset={name}", name=name, shape=shape)
    assert (config["model"], config["augment"]) == (model, augment)


def test_default_workdirs_of_different_flags_differ():
    commands = [
        [], ["--seed=1"], ["--epochs=2"], ["--block_shape=16x1"], ["--sparsity=0.5"],
        ["--mask_optimizer=static"], ["--mask_optimizer=none"], ["--noaugment"],
    ]  # fmt: skip
    names = [resolved(*flags)[0] for flags in commands]
    assert len(set(names)) == len(names)
    assert names[0] == os.path.join("runs", "digits-mlp-guided_es-0.9-s0")
    assert names[3].endswith("-block_shape=16x1")


def test_methods_without_population_ignore_its_size():
    _, config = resolved("--mask_optimizer=static", "--population_size=8")
    assert config["population_size"] is None
