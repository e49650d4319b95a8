"""Training without backpropagation: how its rates are chosen and its tables made."""

import json

from benchmarks.accuracy.results import Results
from benchmarks.forward import __main__ as forward
from benchmarks.forward import report


def row(method, rate, accuracy, seed=0, **more):
    return {
        "suite": "mlp", "case": "mnist", "method": method, "config": {"rate": rate},
        "seed": seed, "split": "test", "steps": 300, "accuracy": accuracy,
        "peak_mib": None if seed else 1000, "cpu_seconds": 10.0, "curve": [],
    } | more  # fmt: skip


TUNED = [
    row("outputs 1", 0.001, 0.5, 1000), row("outputs 1", 0.001, 0.9, 1001),
    row("outputs 1", 0.003, 0.8, 1000), row("outputs 1", 0.003, 0.8, 1001),
]  # fmt: skip


def test_the_rate_is_the_best_on_average():
    assert report.best_rates(TUNED) == {("mlp", "outputs 1", 300): 0.003}


def test_the_table_says_how_far_below_backpropagation():
    rows = [row("backpropagation", 0.001, 0.96), row("outputs 1", 0.003, 0.8)]
    rows.append(row("outputs 1", 0.003, 0.82, seed=1))
    last = report.table(rows)[-1]
    assert "| 15.0 points | 10 | 1,000 |" in last and "| 0.003 | 300 | 2 |" in last


def test_runs_have_the_tuned_rates_and_are_done_once(tmp_path, monkeypatch):
    tuned = Results(tmp_path / "forward-validation.jsonl")
    for found in TUNED:
        tuned.add(found)
    asked = []
    monkeypatch.setattr(
        forward, "in_subprocess", lambda function, *args: asked.append(args)
    )
    flags = ["--suite=mlp", "--seeds=2", f"--output={tmp_path}"]
    flags += ["--method=outputs 1", "--method=weights 1"]
    forward.run_suite(forward.parse(flags), "mlp")
    rates = {args[1]: {c["rate"] for c, _ in args[2]} for args in asked}
    assert rates == {"outputs 1": {0.003}, "weights 1": {0.001}}
    assert [[seed for _, seed in args[2]] for args in asked] == [[0, 1], [0, 1]]
    done = Results(tmp_path / "forward.jsonl")
    for seed in range(2):
        done.add(row("outputs 1", 0.003, 0.8, seed))
    asked.clear()
    forward.run_suite(forward.parse(flags), "mlp")
    assert [args[1] for args in asked] == ["weights 1"]
    asked.clear()
    forward.run_suite(forward.parse([*flags, "--tune"]), "mlp")
    assert len(asked) == 2 and len(asked[1][2]) == 6  # two seeds of three rates
    json.dumps(asked)  # what a process is given
