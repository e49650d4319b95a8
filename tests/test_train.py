"""train.py as a user meets it: results, resuming, signals, and wrong commands."""

import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

import train
from keras_es import callbacks, datasets
from keras_es.distribution import workers
from keras_es.runs import images

ROOT = pathlib.Path(train.__file__).resolve().parent

# Small enough to be quick, with several epochs and a mask that moves.
TINY = ("--epochs=3", "--batch_size=128", "--sparsity=0.75")


def command(*flags):
    return [sys.executable, str(ROOT / "train.py"), *flags]


def environment():
    # One core for each of the processes that tests start side by side.
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}


def start(*flags, cwd, **kwargs):
    return subprocess.Popen(
        command(*flags),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def run(*flags, cwd, **kwargs):
    process = start(*flags, cwd=cwd, **kwargs)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def wait_for(condition, process, seconds=120):
    """Wait until a condition of the file system holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"did not come to pass: {process.communicate()}")
        time.sleep(0.02)


def notes(workdir):
    return sorted((workdir / "checkpoints").glob("step-*.json"))


def final_state(workdir):
    """Return every variable of the last checkpoint, optimizer included."""
    model, progress, damaged = callbacks.AtomicCheckpoint.restore(
        workdir / "checkpoints"
    )
    assert damaged == [] and progress.epoch == 3
    return [np.asarray(v) for v in [*model.variables, *model.optimizer.variables]]


def assert_same_end(workdir, reference):
    for ours, theirs in zip(final_state(workdir), final_state(reference), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (read_summary(w) for w in (workdir, reference))
    for key in ("test_accuracy", "test_loss", "nonzero_parameters", "steps", "layers"):
        assert ours[key] == theirs[key], key


def read_summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


@pytest.fixture
def keep_signals():
    """Puts back the handler that train.main sets."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted tiny run: its workdir and what it printed."""
    folder = tmp_path_factory.mktemp("train")
    code, output, errors = run(*TINY, "--workdir=whole", cwd=folder)
    assert code == 0, errors
    return folder / "whole", output


def test_summary_has_the_result(finished):
    workdir, output = finished
    summary = read_summary(workdir)
    assert summary["dataset"] == "digits" and summary["model"] == "mlp"
    assert summary["mask_optimizer"] == "guided_es" and summary["seed"] == 0
    assert summary["steps"] == 3 * 12 and summary["saved_model"] == "whole/saved_model"
    assert summary["train_seconds"] > 0 and summary["steps_per_second"] > 0
    assert f"{summary['test_accuracy']:.4f}" in output
    assert set(summary["versions"]) == {"python", "tensorflow", "keras", "keras_es"}


def test_number_of_non_zeros_is_exact(finished):
    """Of all weights together, for losses find how they share it."""
    summary = read_summary(finished[0])
    sizes = {row["weight"]: row["size"] for row in summary["layers"]}
    assert sizes == {"dense/kernel": 64 * 256, "dense_1/kernel": 256 * 128}
    nonzeros = sum(row["nnz"] for row in summary["layers"])
    assert nonzeros == (64 * 256 + 256 * 128) // 4
    assert summary["sparsity"] == 0.75
    assert summary["parameters"] == 64 * 256 + 256 * 128 + 128 * 10 + 256 + 128 + 10


def test_saved_model_stands_alone_and_gives_the_reported_accuracy(finished, tmp_path):
    workdir, _ = finished
    data = datasets.load("digits")
    np.savez(tmp_path / "test.npz", x=data.x_test, y=data.y_test)
    script = f"""
import sys
sys.modules["keras_es"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
data = np.load({str(tmp_path / "test.npz")!r})
served = tf.saved_model.load({str(workdir / "saved_model")!r})
logits = served.serve(tf.constant(data["x"])).numpy()
kernels = [v.numpy() for v in served.variables if v.shape.rank == 2]
counts = [int(np.count_nonzero(k)) for k in kernels]
print(np.mean(logits.argmax(-1) == data["y"]), counts)
"""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    accuracy, counts = output.split(maxsplit=1)
    assert float(accuracy) == pytest.approx(
        read_summary(workdir)["test_accuracy"], abs=1e-6
    )
    *layers, dense = json.loads(counts)
    assert layers == [row["nnz"] for row in read_summary(workdir)["layers"]]
    assert sum(layers) == 4096 + 8192 and dense == 1280


def test_report_and_logs_are_there(finished):
    workdir, _ = finished
    png = tf.io.decode_png((workdir / "report.png").read_bytes())
    assert min(png.shape[:2]) > 300 and float(tf.math.reduce_std(
        tf.cast(png, tf.float32))) > 10  # fmt: skip
    assert {p.name for p in (workdir / "logs").iterdir()} == {"train", "validation"}
    assert len(list((workdir / "logs").rglob("*tfevents*"))) == 2


def test_finished_run_is_shown_again_and_left_alone(finished, capsys, keep_signals):
    workdir, output = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert train.main(["train.py", *TINY, f"--workdir={workdir}"]) == 0
    first, *again = capsys.readouterr().out.splitlines()
    assert first.endswith("whole is finished; nothing was changed")
    assert again == output.splitlines()[-len(again) :]
    after = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.slow
@pytest.mark.release
def test_sigkill_and_resume_end_in_the_same_bits(finished, tmp_path):
    reference, _ = finished
    workdir = tmp_path / "killed"
    process = start(*TINY, "--workdir=killed", cwd=tmp_path)
    wait_for(lambda: len(notes(workdir)) >= 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "summary.json").exists()
    # What the kill has cut off in a file, here for certain.
    (workdir / "checkpoints" / ".partial-step-00000036.keras").write_bytes(b"half")
    code, output, errors = run(*TINY, "--workdir=killed", cwd=tmp_path)
    assert code == 0, errors
    assert "resuming after step" in output
    assert_same_end(workdir, reference)
    assert not list(workdir.rglob(".partial-*"))


def stop_early(signum, *flags, cwd):
    """Start a run, send a signal after its first epoch; return code and stderr."""
    process = start(*TINY, "--workdir=stopped", *flags, cwd=cwd)
    wait_for(lambda: len(notes(cwd / "stopped")) >= 1, process)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.slow
def test_sigterm_and_resume_past_a_damaged_checkpoint_end_in_the_same_bits(
    finished, tmp_path
):
    reference, _ = finished
    workdir = tmp_path / "stopped"
    code, errors = stop_early(signal.SIGTERM, cwd=tmp_path)
    assert code == 143, errors
    line = errors.splitlines()[-1]  # XLA may have printed others
    assert "stopped by SIGTERM after step" in line
    assert "the same command goes on" in line
    assert not (workdir / "summary.json").exists()
    newest = notes(workdir)[-1].with_suffix(".keras")
    newest.write_bytes(newest.read_bytes()[:1000])
    code, output, errors = run(*TINY, "--workdir=stopped", cwd=tmp_path)
    assert code == 0, errors
    assert f"damaged checkpoint: {newest.name} (truncated or damaged)" in output
    assert_same_end(workdir, reference)


@pytest.mark.slow
def test_ctrl_c_leaves_a_whole_checkpoint(tmp_path):
    code, errors = stop_early(
        signal.SIGINT, "--epochs=1000", "--jit_compile=false", cwd=tmp_path
    )
    assert code == 130, errors
    (line,) = errors.splitlines()
    _, progress, damaged = callbacks.AtomicCheckpoint.restore(
        tmp_path / "stopped" / "checkpoints"
    )
    assert f"stopped by SIGINT after step {progress.step};" in line
    assert damaged == []


def test_full_disk_is_one_line_and_the_run_goes_on_later(finished, tmp_path):
    def small_files_only():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    code, _, errors = run(
        *TINY, "--workdir=full", "--jit_compile=false",
        cwd=tmp_path, preexec_fn=small_files_only,
    )  # fmt: skip
    assert code == 1, errors
    (line,) = errors.splitlines()
    assert line.startswith(
        "train.py: cannot write full/checkpoints/step-00000012.keras"
    )
    assert not list((tmp_path / "full").rglob(".partial-*"))


EPOCHS_OF_TWO_STEPS = (
    "--epochs=2", "--batch_size=1024", "--jit_compile=false",
    "--mask_optimizer=none", "--sparsity=0",
)  # fmt: skip


def main(workdir):
    return train.main(["train.py", *EPOCHS_OF_TWO_STEPS, f"--workdir={workdir}"])


def end_of(workdir):
    """Return what a run has come to: its result, its bits, and its rows."""
    model, progress, damaged = callbacks.AtomicCheckpoint.restore(
        workdir / "checkpoints"
    )
    assert not damaged and (progress.epoch, progress.step) == (2, 4)
    bits = [
        np.asarray(v).tobytes() for v in (*model.variables, *model.optimizer.variables)
    ]
    summary = read_summary(workdir)
    kept = ("test_accuracy", "test_loss", "nonzero_parameters", "steps", "layers")
    return [summary[key] for key in kept], bits, progress.history


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs of two steps, in this process, and its end."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    before = signal.getsignal(signal.SIGTERM)
    assert main(workdir) == 0
    signal.signal(signal.SIGTERM, before)
    return workdir, end_of(workdir)


@pytest.fixture
def copied(whole, tmp_path, keep_signals):
    """A copy of that run."""
    return pathlib.Path(shutil.copytree(whole[0], tmp_path / "run"))


@pytest.mark.parametrize("step", [2, 4])
def test_stop_in_the_last_step_of_an_epoch(
    whole, tmp_path, monkeypatch, keep_signals, step
):
    real = callbacks.AtomicCheckpoint.on_train_batch_end

    def stop(self, batch, logs=None):
        real(self, batch, logs)
        if self.progress.step == step:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(callbacks.AtomicCheckpoint, "on_train_batch_end", stop)
        assert main(tmp_path) == 143
    _, progress, _ = callbacks.AtomicCheckpoint.restore(tmp_path / "checkpoints")
    assert (progress.epoch, progress.step) == (step // 2, step)
    assert not (tmp_path / "summary.json").exists()
    assert main(tmp_path) == 0
    assert end_of(tmp_path) == whole[1]


def forget_summary(workdir):
    """Go back to a stop between the last checkpoint and the summary."""
    (workdir / "summary.json").unlink()


def forget_epoch(workdir, step):
    """Go back to a checkpoint after a step whose epoch is not counted."""
    forget_summary(workdir)
    for path in notes(workdir):
        note = json.loads(path.read_text())
        if note["step"] > step:
            path.with_suffix(".keras").unlink()
            path.unlink()
        elif note["step"] == step:
            note["epoch"] -= 1
            note["history"].pop()
            path.write_text(json.dumps(note))


@pytest.mark.parametrize("step", [2, 4])
def test_checkpoint_of_an_older_version_whose_epoch_is_not_counted(whole, copied, step):
    forget_epoch(copied, step)
    assert main(copied) == 0
    result, bits, rows = end_of(copied)
    assert [result, bits] == [*whole[1][:2]]
    expected = [{**row} for row in whole[1][2]]
    short = expected[step // 2 - 1]  # what training measured in that epoch is lost
    for name in ("loss", "accuracy"):
        del short[name]
    assert rows == expected


@pytest.fixture
def other_digits(monkeypatch):
    """Returns a function that puts others in place of parts of the digits."""
    digits = datasets.load("digits")

    def change(**parts):
        changed = dataclasses.replace(digits, **parts)
        monkeypatch.setattr(images.images, "load", lambda *_: changed)
        return digits

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: {"x_train": d.x_train[:-9], "y_train": d.y_train[:-9]},
         "training images: it had 1437, now 1428"),
        (lambda d: {"x_test": d.x_test[:9], "y_test": d.y_test[:9]},
         "test images: it had 360, now 9"),
        (lambda d: {"x_train": d.x_train / 2}, "digest of images: it had "),
        (lambda d: {"y_test": d.y_test[::-1]}, "digest of labels: it had "),
    ],
    ids=["fewer", "fewer for test", "darker", "other labels"],
)  # fmt: skip
def test_other_images_are_refused(copied, capsys, other_digits, change, part):
    other_digits(**change(other_digits()))
    for finished in (True, False):
        if not finished:
            forget_epoch(copied, 2)
        before = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
        assert main(copied) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "the data set of the run in" in line and "has changed (" in line
        assert part in line and line.endswith("; choose another --workdir")
        after = {p: p.read_bytes() for p in copied.rglob("*") if p.is_file()}
        assert after == before


def test_workers_that_see_other_data_are_refused(copied, capsys, monkeypatch):
    real = workers.tell_workers

    def tell(strategy, numbers):
        """Be a worker whose labels are others."""
        [row] = real(strategy, numbers)
        return [row, [n + (n > 2**32) for n in row]]

    monkeypatch.setattr(workers, "tell_workers", tell)
    monkeypatch.setattr(workers, "check_same", lambda *_: None)
    assert main(copied) == 2
    assert "the workers see different data sets" in capsys.readouterr().err


def forget_data(workdir):
    """Make it a run of a version that did not note its data."""
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    del config["data"]
    path.write_text(json.dumps(config))
    return path


def test_run_without_a_note_of_its_data_goes_on_and_notes_it(
    whole, copied, capsys, other_digits
):
    known = json.loads((copied / "config.json").read_text())
    config = forget_data(copied)
    before = config.read_bytes()
    assert main(copied) == 0 and config.read_bytes() == before  # it is finished
    forget_summary(copied)
    assert main(copied) == 0 and end_of(copied) == whole[1]
    assert json.loads(config.read_text()) == known and known["data"]["classes"] == 10
    forget_summary(copied)
    forget_data(copied)
    digits = other_digits()
    for rows in (np.arange(1024), np.arange(2 * 1437) % 1437):  # of 1 and 3 steps
        other_digits(x_train=digits.x_train[rows], y_train=digits.y_train[rows])
        capsys.readouterr()
        assert main(copied) == 2
        line = capsys.readouterr().err
        assert "is after 2 epochs and 4 steps; choose another --workdir" in line
        assert "data" not in json.loads(config.read_text())


@pytest.mark.slow
def test_dense_model_has_no_masks(tmp_path):
    code, output, errors = run(
        "--mask_optimizer=none", "--sparsity=0", "--epochs=1", "--workdir=dense",
        "--jit_compile=false", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, errors
    summary = read_summary(tmp_path / "dense")
    assert summary["layers"] == [] and summary["sparsity"] == 0.0
    assert summary["nonzero_parameters"] > 0.99 * summary["parameters"]
