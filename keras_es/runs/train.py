"""The loop of a run in one folder: started, stopped, resumed, finished.

A run folder holds `config.json` (what the run is, and what data it began with),
`checkpoints/`, `logs/` (for TensorBoard) and at the end `saved_model/`, `report.png`
and `summary.json`, the last of which says that the run is finished.
"""

import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_es.distribution import workers
from keras_es.runs import checkpoints, identity, summary, tasks
from keras_es.runs.checkpoints import AtomicCheckpoint, Progress
from keras_es.runs.errors import RunError
from keras_es.runs.signals import StopOnSignal
from keras_es.runs.tensorboard import MaskTensorBoard
from keras_es.runs.workdir import Workdir

Say = Callable[[str], object]
"""Function of a line to be shown."""


def run(workdir: Workdir, model: keras.Model, data: Any, say: Say = print) -> None:
    """Do what is left to do of a run, and show its result.

    Args:
        workdir: An entered `Workdir`.
        model: The compiled model to start with if there is no checkpoint yet.
        data: The data set.
        say: Function of a line to be shown; only the chief's is called.

    Raises:
        keras_es.callbacks.TrainingStopped: If SIGTERM or Ctrl-C ended it early.
        RunError: If something in the folder is of another run, or the data set has
            changed since the run began.
    """
    strategy = model.distribute_strategy
    if not workdir.chief:
        say = _silent
    workers.check_same(strategy, workdir.config)
    known = _task(workdir.config).identity(data)
    workdir.check_data(known)
    result, damage = summary.read(workdir)
    number = int(identity.digest(identity.exact(known)), 16)
    # All workers must see the same, and no summary appears before all have looked.
    told = workers.tell_workers(strategy, [bool(result), number])
    _check_same_data([row[1] for row in told])
    finished = all(row[0] for row in told)
    if finished:
        say(f"{workdir.path} is finished; nothing was changed")
    else:
        if damage:
            say(f"damaged summary: {damage}; making it again")
        result = _train_and_finish(workdir, model, data, say)
    if workdir.chief and result:
        say(summary.table(result))


def _silent(line):
    pass


def _train_and_finish(workdir, model, data, say):
    strategy = model.distribute_strategy
    count = strategy.num_replicas_in_sync
    described = _task(workdir.config).describe(data)
    say(f"{workdir.path}: {described}" + f", {count} replicas" * (count > 1))
    if not model.compiled_by_xla:
        # Keras turns XLA off under this switch, and XLA does not need it.
        tf.config.experimental.enable_op_determinism()
    # A bar that redraws itself is for people, a line an epoch for log files.
    verbose = (1 if sys.stdout.isatty() else 2) if workdir.chief else 0
    model, progress = train(workdir, model, data, say, verbose)
    result = None
    if workdir.chief:
        result = summary.finish(workdir, model, progress, data)
    workers.tell_workers(strategy, [1])  # none leaves before the chief is done
    return result


def train(
    workdir: Workdir,
    model: keras.Model,
    data: Any,
    say: Say = print,
    verbose: int | str = "auto",
) -> tuple[keras.Model, Progress]:
    """Train a model from the last whole checkpoint on, or from the start.

    Args:
        workdir: An entered `Workdir` whose config has batch_size, epochs, seed and
            what its task needs.
        model: The compiled model to start with if there is no checkpoint yet.
        data: The data set.
        say: Function of a line to be shown.
        verbose: As in `model.fit`.

    Returns:
        A tuple of the trained model and its progress.

    Raises:
        keras_es.callbacks.TrainingStopped: If SIGTERM or Ctrl-C ended it early.
        RunError: If workers do not see the same checkpoints, or one is of another run
            or of other data, or cannot be loaded.
    """
    config, folder = workdir.config, workdir.path / "checkpoints"
    strategy = model.distribute_strategy
    path, progress, damaged = checkpoints.latest(folder, config)
    for problem in damaged:
        say(f"damaged checkpoint: {problem}; using the one before it")
    per_epoch = data.steps_per_epoch(config["batch_size"])
    _check_same_step(strategy, progress, folder)
    if path is not None and progress is not None:
        total = per_epoch * config["epochs"]
        _check_steps(progress, per_epoch, total, path)
        with strategy.scope():
            model = checkpoints.load(path)
        say(f"resuming after step {progress.step:,} of {total:,}")
    workdir.note_data()
    checkpoint = AtomicCheckpoint(folder, progress=progress, run=config)
    kind, logs = _task(config), workdir.path / "logs"
    board = []
    if workdir.chief:
        board = [MaskTensorBoard(logs), *kind.callbacks(data, config, logs)]
    progress = checkpoint.progress
    with StopOnSignal(checkpoint) as stop:
        called = [*board, checkpoint, stop]
        while progress.epoch < config["epochs"]:
            epoch, taken = divmod(progress.step, per_epoch)
            validation = validation_batches(data, strategy)
            if epoch > progress.epoch and not taken:
                _end_epoch(model, epoch - 1, validation, called, verbose)
                continue
            batches = kind.train_batches(data, config, progress.step)
            # An epoch that was stopped in its midst is finished by itself.
            model.fit(
                batches,
                steps_per_epoch=per_epoch - taken,
                initial_epoch=epoch,
                epochs=epoch + 1 if taken else config["epochs"],
                validation_data=validation,
                callbacks=called,
                shuffle=False,  # the stream is shuffled
                verbose=verbose,
            )
    return model, progress


def _task(config):
    return tasks.of(config["dataset"], config["model"])


def _end_epoch(model, epoch, validation, callbacks, verbose):
    """Measure and note an epoch that was stopped between its last step and its end.

    An older version left such checkpoints. What training measured in it is lost.
    """
    model.make_train_function()  # tells callbacks whether there are several workers
    logs = model.evaluate(validation, verbose=verbose, return_dict=True)
    called = keras.callbacks.CallbackList(callbacks, model=model)
    called.on_train_begin()
    called.on_epoch_end(epoch, {f"val_{name}": value for name, value in logs.items()})
    called.on_train_end()


def _check_steps(progress, per_epoch, total, path):
    """Refuse a checkpoint whose steps were of shorter or longer epochs.

    The data of runs that an older version began are not known otherwise.
    """
    if not progress.epoch * per_epoch <= progress.step <= total:
        raise RunError(
            f"the data set of this run has changed: an epoch now has {per_epoch:,} "
            f"steps, and {path} is after {progress.epoch:,} epochs and "
            f"{progress.step:,} steps; choose another --workdir"
        )


def _check_same_data(numbers):
    """Stop if workers would train on other data."""
    if len(set(numbers)) > 1:
        raise RunError(
            "the workers see different data sets; --dataset and --data_dir must be the "
            "same for all of them, with the same in it"
        )


def _check_same_step(strategy, progress, folder):
    """Stop if workers would go on from different steps."""
    step = -1 if progress is None else progress.step
    steps = [int(row[0]) for row in workers.tell_workers(strategy, [step])]
    if len(set(steps)) > 1:
        raise RunError(
            f"the workers see different checkpoints in {folder} (steps {steps}, -1 for "
            "none); --workdir must be one folder that all of them share"
        )


def validation_batches(data: Any, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
    """Return the test data for the progress shown in training.

    On TPU all batches have one shape, so what is left over is not in it. It is in what
    the summary says, which is measured on the exported model.
    """
    batches = data.test_batches()
    if not isinstance(strategy, tf.distribute.TPUStrategy):
        return batches
    replicas = strategy.num_replicas_in_sync
    size = min(1000, data.test_size) // replicas * replicas
    return batches.rebatch(max(size, replicas), drop_remainder=True)
