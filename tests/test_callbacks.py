"""Checkpoints that survive, logs that can be read, signals that stop."""

import contextlib
import hashlib
import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import _files as files
from keras_es import callbacks
from keras_es.distribution.trainer import JoinedStep
from keras_es.runs import checkpoints
from keras_es.runs.errors import RunError

X, Y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")


def make_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def fit(model, *more, **kwargs):
    kwargs = {"epochs": 1, "batch_size": 2, "verbose": 0} | kwargs
    return model.fit(X, Y, callbacks=list(more), **kwargs)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def checkpointed(folder, epochs):
    model = make_model()
    fit(model, callbacks.AtomicCheckpoint(folder), epochs=epochs)
    return model


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_newest_checkpoints_stay(folder):
    checkpointed(folder, 4)
    assert names(folder) == [
        "step-00000012.json", "step-00000012.keras",
        "step-00000016.json", "step-00000016.keras",
    ]  # fmt: skip


def test_restored_model_is_the_saved_one_with_its_optimizer(folder):
    model = checkpointed(folder, 2)
    restored, progress, damaged = callbacks.AtomicCheckpoint.restore(folder)
    assert (progress.epoch, progress.step, damaged) == (2, 8, [])
    assert [row["epoch"] for row in progress.history] == [1, 2]
    assert progress.seconds > 0 and progress.timed_steps == 7
    for a, b in zip(
        model.optimizer.variables, restored.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.get_weights(), restored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_empty_folder(folder):
    assert callbacks.AtomicCheckpoint.restore(folder) == (None, None, [])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def forget_note(path):
    path.with_suffix(".json").unlink()


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def emptied(path):
    path.write_bytes(b"")


def spoil_note(path):
    path.with_suffix(".json").write_text('{"epoch": 4')


def strange_note(path):
    path.with_suffix(".json").write_text('{"sha256": 3}')


def note_of(path, **changes):
    """Return a function that puts other values into the note of a checkpoint."""
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | changes))


def renamed(path):
    note_of(path.with_suffix(".json"), step=7)


def another_kind(text):
    return lambda path: path.with_suffix(".json").write_text(text)


def other_type(key, value):
    return lambda path: note_of(path.with_suffix(".json"), **{key: value})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "truncated or damaged"),
        (flip_byte, "truncated or damaged"),
        (garbage, "truncated or damaged"),
        (emptied, "truncated or damaged"),
        (forget_note, "its note is missing"),
        (spoil_note, "its note is damaged"),
        (strange_note, "truncated or damaged"),
        (renamed, "its note is of step 7"),
        *[
            (damage, "its note is damaged")
            for damage in (
                another_kind("[]"),
                another_kind('"note"'),
                another_kind("[" * 100_000),
                other_type("epoch", "2"),
                other_type("step", 8.0),
                other_type("step", True),
                other_type("seconds", None),
                other_type("timed_steps", -1),
                other_type("history", {"loss": 1.0}),
                other_type("history", [{"loss": "low"}]),
                other_type("extra", 1),
            )
        ],
    ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_used(folder, damage, reason):
    checkpointed(folder, 2)
    damage(folder / "step-00000008.keras")
    model, progress, damaged = callbacks.AtomicCheckpoint.restore(folder)
    assert model is not None and progress.step == 4
    assert damaged == [f"step-00000008.keras ({reason})"]


def test_a_whole_file_that_is_no_model_is_refused_by_its_name(folder):
    checkpointed(folder, 2)
    path = folder / "step-00000008.keras"
    garbage(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    note_of(path.with_suffix(".json"), sha256=digest)
    with pytest.raises(RunError, match="cannot load.*step-00000008.*one before"):
        callbacks.AtomicCheckpoint.restore(folder)


def test_all_damaged(folder):
    checkpointed(folder, 2)
    for path in folder.glob("*.keras"):
        truncate(path)
    model, progress, damaged = callbacks.AtomicCheckpoint.restore(folder)
    assert model is None and progress is None and len(damaged) == 2


def test_failed_write_leaves_the_older_checkpoints(folder, monkeypatch):
    checkpointed(folder, 1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fill_disk(self, path, *args, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Sequential, "save", fill_disk)
    model = make_model()
    checkpoint = callbacks.AtomicCheckpoint(
        folder, progress=checkpoints.Progress(epoch=1, step=4)
    )
    with pytest.raises(
        files.OutputError, match="cannot write .*step-00000008.keras: No space left"
    ):
        fit(model, checkpoint)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_leftovers_of_a_killed_process_go(folder):
    folder.mkdir()
    (folder / ".partial-step-00000004.keras").write_bytes(b"half")
    (folder / ".partial-saved_model").mkdir()
    files.remove_partial(folder)
    assert names(folder) == []


def test_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "saved_model"

    def write(path):
        path.mkdir()
        (path / "new").write_text("x")

    target.mkdir()
    (target / "old").write_text("y")
    files.replace_folder(target, write)
    assert names(target) == ["new"] and names(tmp_path) == ["saved_model"]


@pytest.mark.parametrize("keep", [0, -1, None, 2.0, "2", True])
def test_keep_must_be_a_positive_integer(folder, keep):
    with pytest.raises(ValueError, match=f"`keep` must be.*at least 1.*keep={keep!r}"):
        callbacks.AtomicCheckpoint(folder, keep=keep)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: callbacks.AtomicCheckpoint(None), "`folder` must be a path.*None"),
        (lambda: callbacks.AtomicCheckpoint("x", progress=3), "`progress` must be"),
        (
            lambda: callbacks.AtomicCheckpoint("x", run=3),
            "`run` must be None or a dict",
        ),
        (lambda: callbacks.AtomicCheckpoint("x", run={"a": {1}}), "what JSON can hold"),
        (lambda: callbacks.StopOnSignal(None), "`checkpoint` must be.*checkpoint=None"),
        (lambda: callbacks.MaskTensorBoard(None), "`log_dir` must be a path"),
        (lambda: callbacks.MaskTensorBoard("x", 0), "`picture_size` must be.*size=0"),
        (lambda: callbacks.MaskTensorBoard("x", None), "`picture_size` must be"),
    ],
)
def test_bad_arguments_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numpy_integers_will_do(folder):
    assert callbacks.AtomicCheckpoint(folder, keep=np.int64(3)).keep == 3
    assert callbacks.MaskTensorBoard(folder, np.int32(8)).picture_size == 8


def test_checkpoint_of_another_run_is_refused_by_its_name(folder):
    model, run = make_model(), {"seed": 0, "rate": 0.1}
    fit(model, callbacks.AtomicCheckpoint(folder, run=run))
    assert callbacks.AtomicCheckpoint.restore(folder, run)[1].step == 4
    assert callbacks.AtomicCheckpoint.restore(folder)[1].step == 4
    with pytest.raises(
        RunError, match=r"step-00000004.keras is not of this run: --seed=1 \(it has 0\)"
    ):
        callbacks.AtomicCheckpoint.restore(folder, {**run, "seed": 1})
    fit(model, callbacks.AtomicCheckpoint(folder))
    with pytest.raises(RunError, match="its note does not say of which"):
        callbacks.AtomicCheckpoint.restore(folder, run)


class Raise(keras.callbacks.Callback):
    """Sends a signal to this process at one batch."""

    def __init__(self, signum, batch):
        super().__init__()
        self.signum, self.at = signum, batch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.at:
            signal.raise_signal(self.signum)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_at_the_next_step_with_a_checkpoint(folder, signum):
    before = signal.getsignal(signum)
    model = make_model()
    checkpoint = callbacks.AtomicCheckpoint(folder)
    with pytest.raises(callbacks.TrainingStopped, match="after step 3") as stopped:
        with callbacks.StopOnSignal(checkpoint) as stop:
            fit(model, Raise(signum, 2), checkpoint, stop)
    assert stopped.value.signum == signum
    restored, progress, _ = callbacks.AtomicCheckpoint.restore(folder)
    assert (progress.epoch, progress.step) == (0, 3)
    np.testing.assert_array_equal(model.get_weights()[0], restored.get_weights()[0])
    assert signal.getsignal(signum) is before


def test_second_signal_does_not_wait(folder):
    progress = checkpoints.Progress(step=3)
    checkpoint = callbacks.AtomicCheckpoint(folder, progress=progress)
    progress.step = 5  # not saved, so it is not from there that a run goes on
    with pytest.raises(callbacks.TrainingStopped, match="after step 3"):
        with callbacks.StopOnSignal(checkpoint):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)


def eager_model(executions=1):
    """Return a model that compiles nothing: what is tested is when, not what."""
    model = make_model()
    model.compile("sgd", "mse", run_eagerly=True, steps_per_execution=executions)
    return model


def stopped(folder, at=3, fits=fit, executions=1, **kwargs):
    """Fit until a signal at a batch; return what was raised and the checkpoint's."""
    checkpoint = callbacks.AtomicCheckpoint(folder)
    more = (Raise(signal.SIGTERM, at), checkpoint)
    with pytest.raises(callbacks.TrainingStopped) as stop:
        with callbacks.StopOnSignal(checkpoint) as stopper:
            fits(eager_model(executions), *more, stopper, **kwargs)
    return stop.value, checkpoints.latest(folder)[1]


@pytest.mark.parametrize(("executions", "at"), [(1, 3), (2, 2), (3, 3)])
def test_signal_in_the_last_step_of_an_epoch_waits_for_its_end(folder, executions, at):
    """Else the epoch would be lost: it has no further step to be finished by."""
    stop, progress = stopped(
        folder, at, executions=executions, epochs=2, validation_data=(X, Y)
    )
    # Three steps at a time are two executions, and four steps all the same.
    assert (progress.epoch, progress.step, stop.step) == (1, 4, 4)
    [row] = progress.history
    assert row["epoch"] == 1 and {"loss", "val_loss"} < set(row)


def test_signal_in_an_earlier_execution_does_not_wait(folder):
    stop, progress = stopped(folder, 0, executions=2)
    assert stop.step == progress.step == 2 and progress.history == []


def test_signal_where_the_number_of_steps_is_not_known(folder):
    def fits(model, *more):
        batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
        batches = batches.filter(lambda x, y: True)
        model.fit(batches, shuffle=False, verbose=0, callbacks=list(more))

    stop, progress = stopped(folder, 3, fits)
    assert stop.step == progress.step == 4 and progress.epoch == 0


class RaiseInTest(keras.callbacks.Callback):
    """Sends a signal to this process in each validation."""

    def on_test_begin(self, logs=None):
        signal.raise_signal(signal.SIGINT)


def test_second_signal_does_not_wait_for_the_end_of_an_epoch(folder):
    def fits(model, *more):
        fit(model, RaiseInTest(), *more, epochs=2, validation_data=(X, Y))

    stop, progress = stopped(folder, 3, fits)
    assert stop.signum == signal.SIGTERM
    assert stop.step == 0 and progress is None
    stop, progress = stopped(folder, -1, fits)
    assert stop.step == progress.step == 4 and progress.epoch == 1


def test_second_signal_while_saving_does_not_count_what_is_not_saved(
    folder, monkeypatch
):
    def interrupted(*args):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(checkpoints, "save", interrupted)
    stop, progress = stopped(folder, 1)
    assert stop.step == 0 and progress is None


def test_signal_that_came_too_late_for_fit_ends_the_block(folder):
    def fits(model, *more):
        late = keras.callbacks.LambdaCallback(
            on_train_end=lambda logs: signal.raise_signal(signal.SIGTERM)
        )
        fit(model, *more, late)

    stop, progress = stopped(folder, -1, fits)
    assert stop.step == 4 and progress.epoch == len(progress.history) == 1


@pytest.mark.parametrize(("at", "epochs"), [(2, 0), (3, 1)])
def test_signal_to_one_of_several_workers(folder, at, epochs):
    """They are told in the step, and by the end of its epoch if it is the last."""

    def fits(model, *more):
        model.train_function = JoinedStep(model, model.train_step)
        fit(model, *more, epochs=2)

    stop, progress = stopped(folder, at, fits)
    assert stop.step == progress.step == at + 1
    assert progress.epoch == len(progress.history) == epochs


def test_error_in_the_block_is_not_hidden_and_the_stopper_serves_again(folder):
    checkpoint = callbacks.AtomicCheckpoint(folder)
    stopper = callbacks.StopOnSignal(checkpoint)
    with pytest.raises(ZeroDivisionError):
        with stopper:
            signal.raise_signal(signal.SIGTERM)
            1 / 0  # noqa: B018
    with stopper:
        fit(eager_model(), checkpoint, stopper)
    assert checkpoint.progress.epoch == 1


@pytest.mark.parametrize(
    ("inside", "order", "message"),
    [
        (False, "checkpoint stop", "inside its `with` block only.*Received: a `fit`"),
        (True, "stop", "must be listed before it.*Received: one that is missing"),
        (True, "stop checkpoint", "must be listed before it.*or comes after it"),
    ],
)
def test_a_stopper_that_could_not_stop_says_so_at_once(folder, inside, order, message):
    """Not when the signal comes, for then the steps are lost."""
    checkpoint = callbacks.AtomicCheckpoint(folder)
    stopper = callbacks.StopOnSignal(checkpoint)
    named = {"checkpoint": checkpoint, "stop": stopper}
    with stopper if inside else contextlib.nullcontext():
        with pytest.raises(ValueError, match=message):
            fit(eager_model(), *[named[name] for name in order.split()])


def test_a_checkpoint_without_a_model_cannot_be_saved(folder):
    with pytest.raises(RuntimeError, match="model of a `fit`.*Received"):
        callbacks.AtomicCheckpoint(folder).save()


def read_summaries(folder):
    """Return {(tag, step): (plugin, tensor)} of all event files in a folder."""
    events = {}
    for path in sorted(folder.rglob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                tensor = tf.make_ndarray(value.tensor)
                events[value.tag, event.step] = (plugin, tensor)
    return events


def test_scalars_for_tensorboard(tmp_path):
    model = make_model()
    history = fit(
        model, callbacks.MaskTensorBoard(tmp_path), epochs=2, validation_data=(X, Y)
    ).history
    train = read_summaries(tmp_path / "train")
    validation = read_summaries(tmp_path / "validation")
    for step in (0, 1):
        plugin, value = train["epoch_loss", step]
        assert plugin == "scalars" and value == pytest.approx(history["loss"][step])
        assert validation["epoch_loss", step][1] == pytest.approx(
            history["val_loss"][step]
        )
        assert train["epoch_learning_rate", step][1] == pytest.approx(0.1)


def test_a_metric_with_a_number_for_each_class_is_as_many_scalars(tmp_path):
    board = callbacks.MaskTensorBoard(tmp_path)
    board.set_model(make_model())
    board.on_epoch_end(0, {"f1": np.float32([0.25, 0.5]), "loss": np.float32(1.0)})
    board.on_train_end()
    events = read_summaries(tmp_path)
    found = {tag: float(value) for (tag, _), (_, value) in events.items()}
    assert found.pop("epoch_learning_rate") == pytest.approx(0.1)
    assert found == {"epoch_f1/0": 0.25, "epoch_f1/1": 0.5, "epoch_loss": 1.0}


def test_masks_and_scores_for_tensorboard(tmp_path):
    import keras_es

    sparse = keras_es.sparsify(make_model(), sparsity=0.5)
    sparse.compile(keras_es.optimizers.Static("sgd"), "mse")
    fit(sparse, callbacks.MaskTensorBoard(tmp_path))
    events = read_summaries(tmp_path)
    (weight,) = keras_es.masked_weights(sparse)
    plugin, (width, height, png) = events["masks/dense/kernel", 0]
    assert (plugin, width, height) == ("images", b"1", b"3")
    pixels = tf.io.decode_png(png)[..., 0]
    np.testing.assert_array_equal(pixels == 255, weight.kernel_mask.numpy())
    plugin, buckets = events["scores/dense/kernel", 0]
    assert plugin == "histograms"
    assert buckets[:, 2].sum() == np.prod(weight.mask_scores.shape)


def test_full_disk_at_the_logs_is_named(tmp_path):
    blocked = tmp_path / "logs"
    blocked.write_text("a file, not a folder")
    with pytest.raises(files.OutputError, match="cannot write .*logs"):
        fit(make_model(), callbacks.MaskTensorBoard(blocked))


def test_progress_survives_json(folder):
    progress = checkpoints.Progress(
        epoch=1, step=4, seconds=2.5, history=[{"epoch": 1, "loss": float("nan")}]
    )
    path = checkpoints.save(make_model(), folder, progress, keep=1)
    note = json.loads(path.with_suffix(".json").read_text())
    assert note["step"] == 4 and os.path.getsize(path) > 0
    found, restored, _ = checkpoints.latest(folder)
    assert found == path and np.isnan(restored.history[0]["loss"])
