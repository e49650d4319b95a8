"""The harness of the benchmark of tickets; the numbers themselves are not tested."""

import pytest

from benchmarks.lottery import __main__ as program
from benchmarks.lottery import report, suites
from benchmarks.lottery.training import Lines


def case(**more):
    return {
        "suite": "mlp", "dataset": "mnist", "kind": "es", "score": "snr", "seed": 0,
        "steps": 1000, "keep": 0.8, **more,
    }  # fmt: skip


def test_a_round_of_a_case_is_one_line_once(tmp_path):
    lines = Lines(tmp_path / "lottery.jsonl")
    lines.add(case(), 3, accuracy=0.9, density=0.5)
    lines.add(case(), 3, accuracy=0.1, density=0.5)
    lines.add(case(seed=1), 3, accuracy=0.8, density=0.5)
    with lines.path.open("a") as file:
        file.write('{"case": ')  # a stop cut it short
    assert [row["accuracy"] for row in lines.rows()] == [0.9, 0.8]
    lines.add(case(seed=2), 3, accuracy=0.7, density=0.5)
    assert len(lines.rows()) == 3


def test_tables_and_pictures(tmp_path):
    rows = [
        {"case": case(seed=seed), "round": r, "accuracy": 0.9 - 0.01 * seed,
         "density": 0.8**r}
        for seed in (0, 1) for r in (0, 5)
    ]  # fmt: skip
    to = case(transfer_to="fashion_mnist", found_by="es")
    rows += [
        {"case": to, "round": 13, "accuracy": 0.8, "density": 0.055},
        {"case": case(measured="line to next"), "round": 4, "barrier": 0.1,
         "positions": [0.0, 1.0], "losses": [0.1, 0.2]},
        {"case": case(measured="flatness"), "round": 4, "eigenvalue": 3.0},
    ]  # fmt: skip
    text = "\n".join(report.tables(rows))
    assert "| es, snr (1,000 steps) | 0.8950 ± 0.0050 | 0.8950 ± 0.0050 |" in text
    assert "| mlp, mnist | fashion_mnist | es | 0.8000 |  |" in text
    assert "| mnist, es, line to next | 4 | 1 | 0.1000 |  |" in text
    report.draw(rows, tmp_path)
    assert (tmp_path / "lottery.png").stat().st_size > 1000


def test_flags(capsys):
    flags = program.parse(["--score=snr,random", "--at=5,13", "--seeds=1"])
    assert flags.score == ["snr", "random"] and flags.at == [5, 13]
    assert [s.dataset for s in program.studies(flags)] == ["mnist", "fashion_mnist"]
    for wrong in ("--score=best", "--at=0", "--rounds=0", "--suite=mlp,none"):
        with pytest.raises(SystemExit):
            program.parse([wrong])
        assert "Received: " in capsys.readouterr().err


def test_the_network_has_the_weights_of_the_study():
    model = suites.mlp((14, 14, 1), 10)
    assert model.count_params() == 6592 + 42
