"""Flags of train.py: wrong ones get one line each; unset ones follow the data set.

All of it runs in this process, for it ends before training.
"""

import json
import os
import pathlib
import signal

import numpy as np
import pytest

import keras_es
import models
import train
from keras_es import callbacks, datasets
from keras_es.datasets import tfds
from keras_es.distribution import strategies, workers
from keras_es.runs import model, options, settings, summary, workdir
from keras_es.runs.errors import RunError


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
        (["--sparsity=lots"], ["expected a number; received --sparsity=lots"]),
        (["--undefok=sparsty", "--sparsty=1"], ["Unknown command line flag 'undefok'"]),
        (["--epochs=1.5"], ["expected an integer; received --epochs=1.5"]),
        (["--options=augment=so"], ["expected true or false, not augment=so"]),
        (["--help=so"], ["expected true or false; received --help=so"]),
        (["--options=augment"], ["expected NAME=VALUE", "--options=augment"]),
        (["--options=augmnt=true"], ["unknown option 'augmnt'", "mean augment?"]),
        (["--options=units=8"], ["no option 'units', but augment"]),
        (["--options=augment=true,augment=true"], ["is there twice"]),
        (["digits"], ["'digits'"]),
        (["--sparsity=1"], ["[0, 1)", "--sparsity=1.0"]),
        (["--sparsity=-0.1"], ["[0, 1)", "--sparsity=-0.1"]),
        (["--sparsity=nan"], ["[0, 1)", "nan"]),
        (["--model=lenett"], ["unknown model", "lenet", "lenett"]),
        (["--mask_optimizer=guided"], ["unknown mask optimizer", "guided_nes"]),
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
            ["--batch_size=60", "--mask_optimizer=guided_nes", "--population_size=8"],
            ["a batch that the population cannot share", "60", "8"],
        ),
        (
            ["--batch_size=4", "--mask_optimizer=snes", "--population_size=8"],
            ["a batch that the population cannot share"],
        ),
        (["--dataset=mnits"], ["unknown data set", "mnist", "'mnits'"]),
        (["--optimizer=multioptimizer"], ["unknown optimizer", "'adam'"]),
        (["--optimizer=lossscaleoptimizer"], ["unknown optimizer"]),
        (["--epochs=99999999999999999999999"], ["less than 2**31", "--epochs=9999"]),
        (["--epochs=99999999"], ["less than 2**31 steps", "--epochs=99999999"]),
        (
            ["--batch_size=100000000000"],
            ["less than 2**31", "--batch_size=100000000000"],
        ),
        (["--batch_size=1438"], ["1,437 training examples", "--batch_size=1438"]),
        (["--population_size=99999999999999999998"], ["--population_size=9999"]),
        (["--seed=99999999999999999999"], ["[0, 2**31)"]),
        (["--learning_rate=1e39"], ["finite number above 0"]),
        (["--block_shape=9999999999999999x1"], ["ROWSxCOLUMNS"]),
        (
            ["--strategy=mirrored", "--virtual_devices=100000"],
            ["at most 128", "--virtual_devices=100000"],
        ),
        (["--data_dir=x"], ["comes with scikit-learn", "--data_dir=x"]),
        (["--sparsity=0"], ["--mask_optimizer=none", "--sparsity=0.0"]),
        (["--strategy=tpu", "--jit_compile=false"], ["TPU", "--jit_compile=false"]),
        (["--workdir=~nobody-of-this-name/x"], ["~nobody-of-this-name/x"]),
        (["--mask_optimizer=rigl", "--population_size=8"], ["has no population"]),
        (["--mask_optimizer=none", "--block_shape=8x8"], ["has no masks"]),
    ],
)
def test_wrong_flags_get_one_line_and_code_2(fail, flags, parts):
    code, line = fail(*flags)
    assert code == (1 if "no such user" in line else 2)
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
    text = capsys.readouterr().out.split("Flags:\n")[1]
    lines, described = (part.splitlines() for part in text.split("\n\nOptions, as "))
    assert [line.split()[0] for line in described[1:]] == [*options.OPTIONS]
    assert len(lines) <= 20 and all(line.startswith("  --") for line in lines)
    for name in (*model.MASK_OPTIMIZERS, *models.ALL):
        assert any(name in line for line in lines), name


def resolved(*flags, shape=(8, 8, 1), name="digits"):
    images = np.zeros((256, *shape), "uint8")
    labels = np.zeros(256, "int32")
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
        ["--mask_optimizer=static"], ["--mask_optimizer=none"],
        ["--options=augment=true"],
    ]  # fmt: skip
    names = [resolved(*flags)[0] for flags in commands]
    assert len(set(names)) == len(names)
    assert names[0] == os.path.join("runs", "digits-mlp-guided_es-0.9-s0")
    assert names[3].endswith("-block_shape=16x1")


MASK_FLAGS = {
    "sparsity": "0.5",
    "block_shape": "4x2",
    "allocation": "erk",
    "population_size": "16",
}


def built(*flags):
    """Return what the flags make of a model: its masks, and its optimizer."""
    _, config = resolved(*flags, shape=(4, 4, 1))
    data = datasets.ImageDataset(
        "digits", *[np.zeros((256, 4, 4, 1)), np.zeros(256, "int32")] * 2, 10
    )
    made = model.build(config, data, models.ARCHITECTURES["mlp"])
    masks = [(str(w.pattern), w.unit_count) for w in keras_es.masked_weights(made)]
    return masks, json.dumps(made.optimizer.get_config(), sort_keys=True)


@pytest.mark.parametrize("method", model.MASK_OPTIMIZERS)
def test_a_flag_of_masks_is_used_or_refused(method):
    chosen = f"--mask_optimizer={method}"
    usual = built(chosen)
    for flag, value in MASK_FLAGS.items():
        try:
            changed = built(chosen, f"--{flag}={value}")
        except RunError as error:
            assert f"--mask_optimizer={method} has no" in str(error)
            assert str(error).endswith(f"; received --{flag}={value}")
        else:
            assert changed != usual, flag


@pytest.mark.parametrize("method", model.MASK_OPTIMIZERS)
def test_every_other_flag_changes_what_the_run_is(method):
    def config(*flags):
        return resolved(f"--mask_optimizer={method}", *flags)[1]

    values = {
        "model": "lenet", "optimizer": "sgd", "learning_rate": "0.1", "seed": "1",
        "batch_size": "128", "epochs": "2", "jit_compile": "false",
        "options": "augment=true", "strategy": "mirrored", "dataset": "mnist",
    }  # fmt: skip
    unnamed = {*settings.NOT_OF_THE_RESULT, "mask_optimizer"}
    assert {*values, *MASK_FLAGS} == {*train.define_flags()} - unnamed
    usual = config()
    for flag, value in values.items():
        assert config(f"--{flag}={value}") != usual, flag


def test_flags_that_say_nothing_are_not_refused():
    resolved("--mask_optimizer=none", "--sparsity=0", "--block_shape=")


@pytest.mark.parametrize("name", model.inner_optimizers())
def test_optimizers_of_the_list_can_be_made(name):
    _, config = resolved(f"--optimizer={name}", "--mask_optimizer=none")
    data = datasets.ImageDataset(
        "digits", *[np.zeros((256, 4, 4, 1)), np.zeros(256, "int32")] * 2, 10
    )
    made = model.build(config, data, models.ARCHITECTURES["mlp"])
    made.optimizer.build(made.trainable_variables)


def test_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved("--workdir=~/x")[0] == str(tmp_path / "x")
    assert datasets.tfds.folder("~/data") == str(tmp_path / "data")
    assert callbacks.AtomicCheckpoint("~/x").folder == tmp_path / "x"
    assert callbacks.MaskTensorBoard("~/x").log_dir == tmp_path / "x"


DAMAGE = ["[]", '"x"', "3", "{", "", '{"layers": 3}', "[" * 100_000]


@pytest.mark.parametrize("text", DAMAGE)
def test_damaged_summary_is_named_and_made_again(tmp_path, text):
    _, config = resolved()
    with workdir.Workdir(tmp_path, config) as folder:
        (tmp_path / "summary.json").write_text(text)
        found, damage = summary.read(folder)
    assert found is None and damage.startswith(f"{tmp_path / 'summary.json'} (")


def test_summary_of_other_types_is_damaged_and_of_another_run_refused(tmp_path):
    _, config = resolved()
    numbers = dict.fromkeys(
        ("test_accuracy", "test_loss", "sparsity", "parameters", "nonzero_parameters",
         "steps", "train_seconds", "steps_per_second"), 1,
    )  # fmt: skip
    whole = {**config, **numbers, "layers": [], "saved_model": "a", "report": "b"}
    whole["target_sparsity"] = config["sparsity"]
    with workdir.Workdir(tmp_path, config) as folder:
        (tmp_path / "summary.json").write_text(json.dumps(whole))
        assert summary.read(folder) == (whole, None)
        for key in numbers:
            (tmp_path / "summary.json").write_text(json.dumps({**whole, key: "many"}))
            found, damage = summary.read(folder)
            assert found is None and damage, key
        (tmp_path / "summary.json").write_text(json.dumps({**whole, "seed": 3}))
        with pytest.raises(
            RunError, match=r"is not of this run: --seed=0 \(it has 3\)"
        ):
            summary.read(folder)


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "-1", "0", "1e400", "1e300"])
def test_timeout_is_a_number_of_seconds(monkeypatch, text):
    monkeypatch.setenv("KERAS_ES_TIMEOUT", text)
    with pytest.raises(strategies.StrategyError, match=f"seconds above 0.*'{text}'"):
        strategies.make("none")


@pytest.mark.parametrize(
    ("cluster", "task", "problem"),
    [
        ({"worker": []}, ("worker", 0), "index 0 is not one of 0 workers"),
        ({"worker": ["nope"]}, ("worker", 0), "expected host:port"),
        ({"worker": ["a:99999"]}, ("worker", 0), "from 1 to 65535, not 'a:99999'"),
        ({"worker": ["a:0"]}, ("worker", 0), "expected host:port"),
        ({"worker": ["a:1", "a:1"]}, ("worker", 0), "the same address"),
        ({"worker": ["a:1"]}, ("worker", 1), "index 1 is not one of 1 workers"),
        ({"worker": ["a:1"]}, ("worker", -1), "index -1 is not one of 1 workers"),
        ({"worker": ["a:1"]}, ("ps", 0), ""),
        ({"worker": [3]}, ("worker", 0), ""),
        ({"worker": "a:1"}, ("worker", 0), ""),
        ([], ("worker", 0), ""),
    ],
)
def test_wrong_tf_config_is_one_line(monkeypatch, cluster, task, problem):
    kind, index = task
    text = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(workers.WorkersError) as error:
        workers.cluster()
    line = str(error.value)
    assert "TF_CONFIG, such as {" in line and problem in line and repr(text) in line
