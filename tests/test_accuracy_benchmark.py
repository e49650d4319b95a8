"""The comparison of methods: its search, its files, its table, and the digits suite."""

import json
import math
import re

import keras
import numpy as np
import pytest

import keras_es
from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import methods, report, training
from benchmarks.accuracy.global_magnitude import GlobalMagnitude
from benchmarks.accuracy.results import Results
from benchmarks.accuracy.suites import SUITES
from keras_es import schedules
from keras_es.optimizers import OPTIMIZERS
from tests.marks import slow_unless


def row(method="static", seed=0, value=0.9, sparsity=0.9, pattern="weights", **more):
    return {
        "suite": "digits",
        "case": f"{pattern}, {sparsity}",
        "pattern": pattern,
        "wanted_sparsity": sparsity,
        "method": method,
        "config": {"learning_rate": 0.003},
        "seed": seed,
        "split": "test",
        "steps": 10,
        "accuracy": value,
    } | more


def test_every_method_is_compared_with_equal_effort():
    assert {*methods.METHODS} == {*OPTIMIZERS, "dense"}
    for method in methods.NAMES:
        tried = [json.dumps(c, sort_keys=True) for c in methods.grid(method)]
        assert len(set(tried)) == 9
        assert json.dumps(methods.configuration(method, "none"), sort_keys=True) in (
            tried
        )


def test_results_survive_a_stop_in_the_midst_of_a_line(tmp_path):
    results = Results(tmp_path / "deep" / "rows.jsonl")
    assert results.rows() == []
    results.add(row(seed=0))
    with results.path.open("a") as file:
        file.write(json.dumps(row(seed=1))[:30])
    assert [r["seed"] for r in results.rows()] == [0]
    results.add(row(seed=2))
    results.add(row(seed=2, value=0.5))
    assert [(r["seed"], r["accuracy"]) for r in results.rows()] == [(0, 0.9), (2, 0.5)]


def test_what_is_done_is_not_trained_again(tmp_path, monkeypatch):
    trained = []

    def pretend(function, suite, case, trials, split, steps, path):
        trained.extend(trials)
        for method, config, seed in trials:
            name = "dense" if method == "dense" else SUITES[suite].cases[case].name
            Results(path).add(
                row(method, seed, config=config, split=split, steps=steps, case=name)
            )

    monkeypatch.setattr(accuracy, "in_subprocess", pretend)
    command = ["--suite=digits", "--methods=dense,static,rigl", f"--output={tmp_path}"]
    accuracy.main([*command, "--seeds=1"])
    # Of the dense network once, of the others once in each of two cases.
    assert [m for m, _, _ in trained] == ["dense", "static", "rigl", "static", "rigl"]
    trained.clear()
    accuracy.main([*command, "--seeds=2", "--sparsity=0.98"])
    assert [(m, seed) for m, _, seed in trained] == [
        ("dense", 1), ("static", 1), ("rigl", 1),
    ]  # fmt: skip
    assert (tmp_path / "accuracy-digits.png").stat().st_size > 1000
    trained.clear()
    accuracy.main([*command, "--seeds=2", "--sparsity=0.98"])
    accuracy.main([*command, "--seeds=3", "--report"])
    accuracy.main(["--suite=mnist-conv", f"--output={tmp_path}", "--report"])
    one = ["--suite=digits,mnist-conv", f"--output={tmp_path}", "--picture=both"]
    accuracy.main([*one, "--report", "--seeds=2"])
    assert (tmp_path / "accuracy-both.png").stat().st_size > 1000
    assert trained == []


def test_search_takes_the_best_mean_over_cases(tmp_path, monkeypatch):
    better = {"learning_rate": 0.01, "drop_fraction": 0.5}

    def pretend(function, suite, case, trials, split, steps, path):
        assert split == "validation" and all(seed >= 1000 for _, _, seed in trials)
        for method, config, seed in trials:
            good = 0.9 if config == better else 0.5
            Results(path).add(
                row(method, seed, good, config=config, split=split, steps=steps,
                    suite=suite, case=SUITES[suite].cases[case].name)
            )  # fmt: skip

    monkeypatch.setattr(accuracy, "in_subprocess", pretend)
    chosen = tmp_path / "chosen.json"
    chosen.write_text(json.dumps({"static": {"learning_rate": 0.5}}))
    accuracy.main(
        ["--suite=digits,mnist-conv", "--methods=rigl", "--tune",
         f"--output={tmp_path}", f"--config={chosen}"]
    )  # fmt: skip
    assert methods.configuration("rigl", chosen) == better
    assert methods.configuration("static", chosen) == {"learning_rate": 0.5}


def test_configurations_that_were_not_tried_everywhere_are_not_chosen():
    half = {"learning_rate": 0.001}
    rows = [row(value=1.0, config=half), *(row(seed=s, value=0.5) for s in (0, 1))]
    assert methods.best(rows) == {"static": {"learning_rate": 0.003}}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--suite=mnist"], "mnist-lenet.*Received: 'mnist'"),
        (["--suite=digits", "--methods=set,rgl"], "rigl.*Received: 'rgl'"),
        (["--suite=digits", "--sparsity=high"], "numbers.*Received: 'high'"),
        (["--suite=digits", "--seeds=0"], "--seeds: expected at least 1. Received: 0"),
    ],
)
def test_wrong_flags(flags, text, capsys):
    with pytest.raises(SystemExit) as error:
        accuracy.parse(flags)
    assert error.value.code == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert re.search(text, errors)


def test_search_is_on_the_cases_that_the_suite_names():
    flags = accuracy.parse(["--suite=mnist-lenet", "--tune", "--methods=rigl,dense"])
    found = dict(accuracy.trials(flags, "mnist-lenet"))
    assert list(found) == [2, 3]
    assert [len(trials) for trials in found.values()] == [18, 9]  # dense once
    assert {seed for trials in found.values() for _, _, seed in trials} == {1000}


def test_table_has_mean_and_standard_error():
    rows = [
        *(row("static", s, v) for s, v in enumerate((0.90, 0.92, 0.94))),
        row("rigl", 0, 0.95),
        row("dense", 0, 0.97, 0.0, "dense"),
    ]
    mean, error, count = report.summary(rows)["weights", 0.9]["static"]
    assert (mean, count) == (pytest.approx(0.92), 3)
    assert error == pytest.approx(0.02 / math.sqrt(3))
    lines = report.table(rows)
    assert lines[0] == "| | `rigl` | `static` | `dense` |"
    assert lines[2] == "| weights, 90 % | 95.00 (1 seed) | 92.00 ± 1.15 |  |"
    assert lines[3] == "| dense |  |  | 97.00 (1 seed) |"


def test_one_method_is_compared_with_the_best_of_the_others():
    rows = [
        *(row("guided_es", s, v) for s, v in enumerate((0.90, 0.92, 0.94))),
        *(row("rigl", s, v) for s, v in enumerate((0.80, 0.84, 0.88))),
        *(row("set", s, 0.7) for s in range(3)),
        row("set", 0, 0.7, sparsity=0.95),
        row("dense", 0, 0.97, 0.0, "dense"),
    ]
    lines = report.ahead(rows, "guided_es")
    assert lines[0] == "| | `guided_es` | best of the others | ahead by |"
    assert lines[2:] == [
        "| weights, 90 % | 92.00 ± 1.15 | `rigl`, 84.00 ± 2.31 | 8.00 ± 2.58 |"
    ]
    [*_, line] = report.ahead([row("guided_es", 0, 0.9), *rows[3:5]], "guided_es")
    assert line.endswith("8.00 (1 seed) |")


def test_validation_holds_out_training_examples():
    full, part = (training.examples("digits", s) for s in ("test", "validation"))
    assert len(part.x_train) + len(part.x_test) == len(full.x_train)
    known = {x.tobytes() for x in full.x_train}
    assert {x.tobytes() for x in [*part.x_train, *part.x_test]} == known
    assert len(part.x_test) == len(full.x_train) // 6


# Some 0.04 below what one seed gave, which is twice the spread over seeds.
THRESHOLDS = {
    "static": 0.87,
    "set": 0.88,
    "rigl": 0.89,
    "straight_through": 0.89,
    "gradual_magnitude": 0.91,
}


@pytest.mark.parametrize("name", methods.VARIANTS)
def test_variants_are_what_they_say(name):
    """The method of a run and its arguments, by the knobs that methods declare."""
    suite = SUITES["digits"]
    data = training.examples("digits", "test")
    model = training.build(suite, suite.cases[0], name, data, 0)
    config = methods.configuration(name, "none")
    found = methods.optimizer(name, config, model, 100, 0)
    variant = methods.VARIANTS[name]
    assert isinstance(found, OPTIMIZERS[variant.method])
    for argument, value in variant.arguments.items():
        if value is not None:
            assert getattr(found, argument) == value
    if variant.method != "rigl":  # which is as sparse as wanted from the first step
        constant = "sparsity_schedule" in variant.arguments
        assert (found.sparsity_schedule.end_step == 0) == constant
    densities = {1.0 - m.sparsity for m in keras_es.masked_weights(model)}
    by_size = methods.allocation(name, suite.allocation) != "uniform"
    assert (len(densities) > 1) == by_size


def test_one_threshold_for_all_layers():
    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(12), keras.layers.Dense(4)]
    )
    model = keras_es.sparsify(plain, 0.75, seed=0)
    schedule = schedules.PolynomialSparsity(2, update_every=1)
    model.compile(GlobalMagnitude("sgd", sparsity_schedule=schedule), "mse")
    x = np.random.default_rng(0).normal(size=(32, 8))
    model.fit(x, x[:, :4], batch_size=8, verbose=0)
    weights = keras_es.masked_weights(model)
    assert sum(m.deployed_nnz() for m in weights) == (96 + 48) // 4
    kernels = [np.abs(m.kernel.numpy()) for m in weights]
    kept = [k[m.kernel_mask.numpy()] for k, m in zip(kernels, weights)]
    assert [len(k) for k in kept] != [24, 12]


@pytest.mark.parametrize("method", slow_unless(["rigl"], THRESHOLDS))
def test_digits(method):
    found = training.run("digits", 0, method, methods.configuration(method), 0)
    assert found["accuracy"] > THRESHOLDS[method]
    nonzeros = round(0.02 * 64 * 256) + round(0.02 * 256 * 128)
    assert found["sparsity"] == pytest.approx(1 - nonzeros / (64 * 256 + 256 * 128))
    assert found["case"] == "weights, 98 %" and found["steps"] == 600
