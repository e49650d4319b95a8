"""The results of pure evolution: their files and tables, and short versions of them."""

import json

import keras
import numpy as np
import pytest

from benchmarks.accuracy.results import Results
from benchmarks.bbob import __main__ as bbob
from benchmarks.bbob import report as bbob_report
from benchmarks.pure import __main__ as pure
from benchmarks.pure import networks, report, suites, training
from keras_es import optimizers


def compared(ours, theirs, function="sphere"):
    row = {"algorithm": "SNES", "dimensions": 10, "function": function}
    return bbob_report.compared({**row, "ours": ours, "theirs": theirs})


def test_medians_and_ranks_say_who_is_ahead():
    low, high = np.linspace(1.0, 2.0, 15), np.linspace(1.9, 3.0, 15)
    ours = compared([*low], [*high])
    assert ours["ahead"] and ours["no_worse"] and ours["better"]
    theirs = compared([*high], [*low])
    assert not theirs["ahead"] and not theirs["no_worse"]
    # A little larger a median may be chance.
    close = compared([*low + 0.01], [*low])
    assert not close["ahead"] and close["no_worse"] and not close["better"]
    # What is solved is solved.
    solved = compared([1e-9] * 15, [1e-12] * 15)
    assert solved["ahead"] and solved["no_worse"] and not solved["better"]
    lines = bbob_report.summary([ours, {**theirs, "function": "discus"}])
    assert lines[-1] == "| `SNES` | 10 | 1 of 2 | 1 of 2 | 1 of 2 |"
    lines = bbob_report.table([ours, theirs])
    assert "larger median" in lines[-1] and "larger median" not in lines[-2]


def test_results_of_other_algorithms_stay(tmp_path, monkeypatch, capsys):
    def pretend(function, name):
        values = [1.0 + seed for seed in range(15)]
        row = {"algorithm": name, "function": "sphere"}
        row |= {"ours": values, "theirs": values}
        return [{**row, "dimensions": size} for size in (10, 40)], 0

    monkeypatch.setattr(bbob, "in_subprocess", pretend)
    for name in ("PGPE", "SNES"):
        assert bbob.main([f"--algorithm={name}", f"--output={tmp_path}"]) == 0
    rows = json.loads((tmp_path / "bbob.json").read_text())["rows"]
    found = [(row["algorithm"], row["dimensions"]) for row in rows]
    assert found == [("SNES", 10), ("SNES", 40), ("PGPE", 10), ("PGPE", 40)]
    assert (tmp_path / "bbob.png").stat().st_size > 1000
    capsys.readouterr()
    assert bbob.main(["--report", f"--output={tmp_path}"]) == 0
    assert "| `PGPE` | 40 | 1 of 1 | 1 of 1 | 0 of 1 |" in capsys.readouterr().out


def test_a_binary_network_holds_signs_alone(tmp_path):
    keras.utils.set_random_seed(0)
    model = networks.binary((28, 28, 1), 10)
    x = np.random.default_rng(0).random((64, 28, 28, 1)).astype("float32")
    logits = model(x)
    model.get_layer("filters").kernel.assign(np.sign(model.get_layer("filters").kernel))
    np.testing.assert_array_equal(model(x), logits)
    hidden = keras.Model(model.inputs[0], model.layers[-2].output)(x)
    assert set(np.unique(hidden)) == {-1.0, 1.0}
    # Differences of logits of sums of signs: even numbers of steps.
    steps = np.asarray(logits) / model.layers[-1].scale
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    model.save(tmp_path / "binary.keras")
    loaded = keras.models.load_model(tmp_path / "binary.keras")
    np.testing.assert_array_equal(loaded(x), logits)


def test_patches_are_those_of_a_convolution():
    x = np.random.default_rng(0).random((2, 9, 8, 3)).astype("float32")
    convolution = keras.layers.Conv2D(5, 4, strides=2, use_bias=False)
    expected = np.asarray(convolution(x)).reshape(2, -1, 5)
    kernel = np.asarray(convolution.kernel).reshape(-1, 5)
    found = np.asarray(networks.Patches(4, 2)(x)) @ kernel
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def digits(monkeypatch):
    suite = suites.Suite(
        "digits",
        lambda shape, classes: networks.binary(shape, classes, size=4, stride=2),
        {
            "open_es": {
                "population": 8, "batch_size": 16, "learning_rate": 0.05, "sigma": 0.5
            }
        },
        generations=40,
        target=0.1,
        tried={"open_es": [{}, {"learning_rate": 0.1, "generations": 20}]},
    )  # fmt: skip
    # In this process: a new one would not know of it.
    monkeypatch.setattr(pure, "in_subprocess", lambda function, *args: function(*args))
    monkeypatch.setitem(suites.SUITES, "digits", suite)


@pytest.mark.slow
def test_runs_are_not_repeated_and_the_test_set_is_for_the_end(
    tmp_path, monkeypatch, digits, capsys
):
    command = ["--suite=digits", "--seeds=1", f"--output={tmp_path}"]
    assert pure.main([*command, "--validation"]) == 0
    assert pure.main(command) == 0
    (row,) = Results(tmp_path / "pure.jsonl").rows()
    (tuned,) = Results(tmp_path / "pure-validation.jsonl").rows()
    assert len(row["curve"]) == training.POINTS
    assert row["curve"][-1]["generation"] == row["steps"] == 40
    assert tuned["accuracy"] == tuned["curve"][-1]["accuracy"]
    assert (tuned["seed"], tuned["split"]) == (1000, "validation")
    assert (tmp_path / "pure.png").stat().st_size > 1000
    assert "| digits | open_es | 3,392 | 8 x 16 | 40 |" in capsys.readouterr().out
    monkeypatch.setattr(training, "run", None)  # would fail
    assert pure.main(command) == 0


@pytest.mark.slow
def test_tuning_tries_what_a_suite_lists_on_held_out_data(tmp_path, digits, capsys):
    command = ["--suite=digits", "--tune", "--seeds=1", f"--output={tmp_path}"]
    assert pure.main(command) == 0
    rows = list(Results(tmp_path / "pure-validation.jsonl").rows())
    assert [row["steps"] for row in rows] == [40, 20]
    assert [row["config"]["learning_rate"] for row in rows] == [0.05, 0.1]
    assert "generations" not in rows[1]["config"]
    assert not (tmp_path / "pure.jsonl").exists()
    lines = capsys.readouterr().out.splitlines()
    found = [float(line.split("|")[3]) for line in lines if "| open_es |" in line]
    best_first = sorted((row["accuracy"] for row in rows), reverse=True)
    assert found == pytest.approx(best_first, abs=1e-4)
    with pytest.raises(SystemExit):
        pure.parse(["--suite=binary", "--tune"])
    assert "--tune: expected a suite of" in capsys.readouterr().err


def test_unknown_suites_are_refused(capsys):
    with pytest.raises(SystemExit):
        pure.parse(["--suite=binary,mnst"])
    assert "Received: 'mnst'" in capsys.readouterr().err


def test_strategies_as_shipped_have_their_own_defaults():
    for name, config in suites.SUITES["strategies"].methods.items():
        keras.backend.clear_session()  # names count from 1 again
        found = suites.strategy(name, config, 100, seed=3)
        assert type(found) is optimizers.PURE[name]
        keras.backend.clear_session()
        shipped = optimizers.PURE[name](None, seed=3).get_config()
        assert found.get_config() == shipped
        assert config["population"] == shipped.get("population_size", 2)


def test_table_says_of_how_many_examples_some_are_drawn():
    row = {"suite": "a", "method": "snes", "weights": 5, "steps": 40, "accuracy": 0.5}
    row |= {"seconds": 60.0, "cpu_seconds": 30.0}
    config = {"population": 8, "batch_size": 1024, "sampled_examples": 32}
    lines = report.table([{**row, "config": config}], {})
    assert "| 8 x 32 of 1,024 | 40 |" in lines[-1]


def test_table_has_the_standard_error_over_seeds():
    assert report.mean_and_error([0.9]) == "0.9000"
    assert report.mean_and_error([0.9, 0.92, 0.94]) == "0.9200 ± 0.0115"


def test_the_peer_computes_the_same_network():
    pytest.importorskip("evosax")
    from benchmarks.pure import peer

    model = networks.cifar_patches((32, 32, 3), 10)
    assert 130_000 < model.count_params() < 140_000
    generator = np.random.default_rng(0)
    x = generator.random((5, 32, 32, 3)).astype("float32")
    y = generator.integers(0, 10, 5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = peer.mean_loss([np.asarray(w) for w in model.get_weights()], x, y)
    np.testing.assert_allclose(found, loss(y, model(x)), rtol=1e-4)
