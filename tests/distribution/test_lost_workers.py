"""Workers that never come, are killed, or are asked to stop."""

import json
import signal
import time

import keras
import numpy as np
import pytest

from keras_es.runs import checkpoints
from tests.distribution.launch import ROOT, Workers, run_workers
from tests.test_train import notes

pytestmark = pytest.mark.slow

TRAIN = (
    ROOT / "train.py", "--strategy=multi_worker", "--epochs=12", "--batch_size=128",
    "--mask_optimizer=guided_nes", "--population_size=4", "--sparsity=0.75",
    "--jit_compile=false", "--workdir=run",
)  # fmt: skip


def last_weights(folder):
    """Return all variables of the last checkpoint."""
    path, _, damaged = checkpoints.latest(folder / "run" / "checkpoints")
    assert damaged == []
    model = keras.models.load_model(path)
    return [np.asarray(v) for v in [*model.variables, *model.optimizer.variables]]


def assert_same_end(folder, reference):
    for ours, theirs in zip(last_weights(folder), last_weights(reference), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (
        json.loads((f / "run" / "summary.json").read_text())
        for f in (folder, reference)
    )
    for key in ("test_accuracy", "test_loss", "steps", "layers", "replicas"):
        assert ours[key] == theirs[key], key


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    first, second = run_workers(2, *TRAIN, cwd=folder)
    assert "2 replicas" in first and second == ""
    return folder


@pytest.mark.release
def test_chief_alone_writes(undisturbed):
    names = {path.name for path in (undisturbed / "run").iterdir()}
    assert names == {
        ".lock", "config.json", "checkpoints", "logs", "saved_model", "report.png",
        "summary.json",
    }  # fmt: skip


def newest(folder):
    """Return the name of the last checkpoint's note, or None."""
    return next(iter(notes(folder / "run")[::-1]), None)


def killed(workers, victim):
    """Kill a worker: the other ends soon, and says why in one line."""
    workers.processes[victim].send_signal(signal.SIGKILL)
    started = time.monotonic()
    code, _, errors = workers.end(120)[1 - victim]
    assert time.monotonic() - started < 60
    assert code == 1, errors
    # TensorFlow may log more of it, before and after.
    (line,) = (e for e in errors.splitlines() if e.startswith("train.py: "))
    assert "another worker was lost" in line


def asked(workers, one):
    """Ask one worker to stop: all stop at one step, which is saved."""
    workers.processes[one].send_signal(signal.SIGTERM)
    done = workers.end(120)
    _, progress, damaged = checkpoints.latest(workers.cwd / "run" / "checkpoints")
    assert damaged == []
    for code, _, errors in done:
        assert code == 143, errors
        assert f"stopped by SIGTERM after step {progress.step};" in errors


@pytest.mark.release
def test_killed_and_stopped_and_started_again_they_end_in_the_same_bits(
    undisturbed, tmp_path
):
    for end, victim in ((killed, 0), (asked, 1), (killed, 1), (asked, 0)):
        before = newest(tmp_path)
        with Workers(2, *TRAIN, cwd=tmp_path) as workers:
            workers.wait_for(lambda last=before: newest(tmp_path) != last)
            end(workers, victim)
    first, _ = run_workers(2, *TRAIN, cwd=tmp_path)
    assert "resuming after step" in first
    assert_same_end(tmp_path, undisturbed)


@pytest.mark.parametrize("absent", [0, 1])
def test_worker_that_never_comes_is_named(tmp_path, absent):
    with Workers(
        2, *TRAIN, absent=[absent], cwd=tmp_path, KERAS_ES_TIMEOUT="3"
    ) as workers:
        ((code, _, errors),) = workers.end(120)
    assert code == 1
    (line,) = errors.splitlines()
    assert f"1 of 2 workers did not come within 3 seconds: worker {absent} at" in line
    assert list(tmp_path.iterdir()) == []
