"""The harness of the benchmark of tickets; the numbers themselves are not tested."""

import keras
import numpy as np
import pytest

from benchmarks.lottery import __main__ as program
from benchmarks.lottery import report, suites
from benchmarks.lottery.training import Lines, Study
from keras_es import lottery


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
        for seed in (0, 1) for r in (0, 5, 6)
    ]  # fmt: skip
    to = case(transfer_to="fashion_mnist", found_by="es")
    rows += [
        {"case": to, "round": 13, "accuracy": 0.8, "density": 0.055},
        {"case": case(measured="line to next"), "round": 4, "barrier": 0.1,
         "positions": [0.0, 1.0], "losses": [0.1, 0.2]},
        {"case": case(measured="flatness"), "round": 4, "eigenvalue": 3.0},
    ]  # fmt: skip
    rows += [
        {"case": case(seed=seed, score="magnitude"), "round": 5,
         "accuracy": 0.9 - 0.03 * seed, "density": 0.8**5} for seed in (0, 1, 2)
    ]  # fmt: skip
    text = "\n".join(report.tables(rows))
    # Of pairs of a seed alone: 0.00 and 0.02.
    assert "| es, snr − es, magnitude | +0.0100 ± 0.0100 |  |" in text
    same = " 0.8950 ± 0.0050 |" * 3
    assert f"| es, snr (1,000 steps) |{same}" in text
    assert "| mlp, mnist, 5.5% | fashion_mnist | es | 0.8000 |  |" in text
    assert "| mnist, es, line to next | 41.0% | 1 | 0.1000 |  |" in text
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


def test_suites_differ_in_what_their_names_say():
    found = {}
    for name in ("mlp", "mlp-long", "mlp-std-rate", "mlp-sep-cma-es"):
        suite = suites.SUITES[name]
        search = suites.strategy(suite, "es", 0, suite.generations)
        rate = getattr(search, "std_learning_rate", None)
        found[name] = (type(search).__name__, rate, suite.generations)
    assert found == {
        "mlp": ("SNES", None, 600), "mlp-long": ("SNES", None, 2400),
        "mlp-std-rate": ("SNES", 0.3, 600), "mlp-sep-cma-es": ("SepCMAES", None, 600),
    }  # fmt: skip


def study_of(tmp_path, seed=0):
    """Return a study with little data, whose es-snr is at round 0."""
    flags = program.parse(["--keep=0.5", f"--output={tmp_path}", f"--work={tmp_path}"])
    study = Study("mlp", "mnist", seed, flags)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 14, 14, 1)).astype("float32")
    study._examples["mnist"] = [(x, np.arange(12) % 10)] * 2
    ticket = lottery.Ticket.dense(study.build())
    ticket.history, ticket.settings = [{"round": 0, "seconds": 1.0}], {"score": "snr"}
    folder = study.folder("es", "snr")
    folder.mkdir(parents=True)
    ticket.save(folder / "ticket.npz")
    values = [rng.normal(size=v.shape).astype("float32") for v in ticket.values]
    np.savez(folder / "trained-00.npz", *values)
    return study, ticket, values


def test_magnitude_begins_with_the_dense_fit_of_snr(tmp_path):
    study, ticket, values = study_of(tmp_path)
    study._begin_with_dense("es", "magnitude")
    begun = study.ticket("es", "magnitude")
    assert (begun.round, begun.nonzero) == (1, 3296)
    assert begun.settings == {"score": "magnitude"} and begun.history == ticket.history
    for a, b in zip(begun.values, ticket.values):
        np.testing.assert_array_equal(a, b)
    sizes = [np.abs(values[0]), np.abs(values[2])]
    least = np.sort(np.concatenate([s.reshape(-1) for s in sizes]))[3296]
    for mask, size in zip(begun.masks.values(), sizes):
        np.testing.assert_array_equal(mask, size >= least)
    model = study.trained("es", "magnitude", 0)
    x, y = study.data()[1]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = study.tested(model)
    assert found["val_loss"] == pytest.approx(float(loss(y, model(x))), rel=1e-5)
    hits = np.argmax(model(x), -1) == y
    assert found["val_accuracy"] == pytest.approx(hits.mean())


def test_what_a_ticket_does_where_it_was_found_is_not_trained_again(tmp_path):
    study, ticket, _ = study_of(tmp_path)
    study.lines.add(study.case("es", "snr"), 4, accuracy=0.9, density=0.06)
    case = study.case("es", "snr", transfer_to="mnist", found_by="es")
    study.train(ticket, "es", case, 4, "mnist")
    assert study.lines.row(case, 4)["accuracy"] == 0.9
