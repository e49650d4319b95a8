"""Training without backpropagation: how its rates are chosen and its tables made."""

import json
import math
import subprocess
import sys

import pytest

from benchmarks.accuracy.results import Results
from benchmarks.forward import __main__ as forward
from benchmarks.forward import limit, memory, report
from benchmarks.timing import ProcessFailedError


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


def test_runs_with_a_rate_of_an_older_tuning_are_not_in_the_table():
    rows = [row("outputs 1", 0.001, 0.1), row("outputs 1", 0.003, 0.8)]
    last = report.table(rows)[-1]
    assert "| 0.003 | 300 | 1 | 0.8" in last


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
    json.dumps(asked)  # what a process is given


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.001, [0.0003, 0.001, 0.003]),
        (0.03, [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]),
        (0.0001, [0.00003, 0.0001, 0.0003, 0.001, 0.003]),
        (100.0, [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]),  # three more and no further
    ],
)
def test_a_grid_grows_while_its_best_rate_is_at_an_end(
    best, tried, tmp_path, monkeypatch
):
    rates = []

    def run(function, suite, method, trials, *args):
        for config, seed in trials:
            rates.append(config["rate"])
            away = abs(math.log(config["rate"] / best))
            results.add(row(method, config["rate"], -away, seed, split="validation"))

    monkeypatch.setattr(forward, "in_subprocess", run)
    results = Results(tmp_path / "forward-validation.jsonl")
    flags = ["--suite=mlp", "--seeds=2", f"--output={tmp_path}", "--tune"]
    flags = forward.parse([*flags, "--method=outputs 1"])
    forward.run_suite(flags, "mlp")
    assert sorted(rates) == sorted(2 * tried)  # for each of two seeds
    forward.run_suite(flags, "mlp")
    assert len(rates) == 2 * len(tried)


def within(code, mib=48):
    """Run some code in a process that may take so much, and return how it ends."""
    head = "import time; from benchmarks.forward import limit; "
    code = f"{head}look = limit.begin({mib}); {code}; look()"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_a_limit_counts_what_is_touched_not_what_is_reserved():
    reserved = "import mmap; reserved = mmap.mmap(-1, 1 << 30)"
    done = within(f"{reserved}; touched = b'1' * (24 << 20)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code",
    ["held = b'1' * (64 << 20); time.sleep(60)", "b'1' * (64 << 20)"],
    ids=["held", "freed before the process is looked at"],
)
def test_a_process_that_takes_more_is_ended(code):
    done = within(code)
    assert done.returncode == limit.EXCEEDED
    assert "may take 48 MiB" in done.stderr and "is ended at" in done.stderr


def test_only_what_the_limit_ended_does_not_fit(monkeypatch):
    def ended(*args, env):
        raise ProcessFailedError("train", code)

    monkeypatch.setattr(memory, "in_subprocess", ended)
    code = limit.EXCEEDED
    assert memory.fits(16, "forward", 800) is None
    code = 1
    with pytest.raises(ProcessFailedError, match="exit code=1"):
        memory.fits(16, "forward", 800)


def test_a_limit_that_weights_alone_exceed_is_refused(capsys):
    with pytest.raises(SystemExit):
        forward.parse(["--limit=100", "--depths=4,16"])
    said = capsys.readouterr().err
    assert "expected at least 129 MiB for 16 layers" in said
    assert "Received: 100" in said
    # 4 layers of 1,024 x 1,024, and outputs of 8,192 x 1,024: 16 + 64 MiB.
    assert forward.parse(["--limit=100", "--depths=4"]).limit == 100


def test_the_table_says_what_trains_within_a_limit():
    known = {
        "limit 800, forward, 16": {"losses": [2.0, 0.5], "taken": 700 << 20},
        "limit 800, backward, 16": None,
    }
    lines = report.measured(known)
    assert "| 16 | 800 | forward | yes | 700 | 2, 0.5 |" in lines
    assert "| 16 | 800 | backward | no |  |  |" in lines
