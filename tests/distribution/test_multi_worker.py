"""Several processes of `MultiWorkerMirroredStrategy` on the loopback.

Each runs worker.py, which does everything once, for to start workers takes longest.
"""

import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distribution import worker
from tests.distribution.launch import ROOT, run_workers
from tests.marks import release
from tests.training.common import data

pytestmark = pytest.mark.slow

# Batch statistics and noise are each worker's own; without them, sums are those of one.
PLAIN = ("plain", "plain, steps_per_execution", "plain, unknown length")

OF_THREE = ("plain", "guided", "pure, one population")
"""What shares of three could get wrong; the last also serves."""

SCRIPT = pathlib.Path(worker.__file__)


@pytest.fixture(scope="module", params=[2, release(3)])
def results(request, tmp_path_factory):
    """Returns a function from a case to what each worker found."""
    folder = tmp_path_factory.mktemp(f"workers{request.param}")
    cases = OF_THREE if request.param == 3 else ()
    run_workers(request.param, SCRIPT, folder, *cases)

    def load(case):
        if cases and case not in (*cases, "served"):
            pytest.skip("as with two workers")
        paths = [folder / str(i) / f"{case}.npz" for i in range(request.param)]
        return [dict(np.load(path)) for path in paths]

    load.chief = folder / "0"
    return load


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Returns a function from a case to what one process without strategy found."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run(
        [sys.executable, SCRIPT, folder, *PLAIN], check=True, timeout=300, cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    return lambda case: dict(np.load(folder / "alone" / f"{case}.npz"))


@pytest.mark.parametrize("case", worker.CASES)
def test_all_workers_end_with_the_same_bits(results, case):
    first, *others = results(case)
    for other in others:
        assert first.keys() == other.keys()
        for key in first:
            if "/held_" in key:  # the members are each worker's own
                continue
            np.testing.assert_array_equal(first[key], other[key], err_msg=key)
    assert np.isfinite(first["history loss"]).all()


@pytest.mark.parametrize("case", [c for c in worker.CASES if c in PLAIN])
def test_plain_gradients_equal_those_of_one_process(results, alone, case):
    got, want = results(case)[0], alone(case)
    assert want.keys() == got.keys()
    for key in want:
        if key.endswith("iteration"):  # Keras counts a step where the data ends
            assert got[key] == 6
            continue
        np.testing.assert_allclose(got[key], want[key], 1e-4, 1e-5, err_msg=key)


def test_moving_statistics_move(results):
    got = results("plain, statistics")[0]
    (mean,) = [value for key, value in got.items() if key.endswith("moving_mean")]
    assert np.abs(mean).min() > 0.0


def test_evaluate_and_predict_serve_each_example_once(results):
    model = keras.models.load_model(results.chief / "model.keras")
    x, y = data(20, seed=2)
    for served in results("served"):
        np.testing.assert_allclose(
            served["predicted"], model.predict(x, verbose=0), 1e-4, 1e-5
        )
        np.testing.assert_allclose(
            served["evaluated"], model.evaluate(x, y, verbose=0), 1e-4
        )


def test_export_stands_alone(results):
    served = tf.saved_model.load(str(results.chief / "exported"))
    x, _ = data(20, seed=2)
    np.testing.assert_allclose(
        served.serve(tf.constant(x)), results("served")[0]["predicted"], 1e-4, 1e-5
    )
