"""One training run in one folder: started, stopped, resumed, finished.

A run folder holds `config.json` (what the run is), `checkpoints/`, `logs/` (for
TensorBoard) and at the end `saved_model/`, `report.png` and `summary.json`, the last of
which says that the run is finished.
"""

import contextlib
import dataclasses
import json
import math
import os
import platform

import keras
import numpy as np
import tensorflow as tf

from keras_es import callbacks, plots
from keras_es.distribution import workers
from keras_es.runs import checkpoints, files
from keras_es.runs.workdir import RunError


def train(workdir, model, data, say=print, verbose="auto"):
    """Train a model from the last whole checkpoint on, or from the start.

    Args:
        workdir: An entered `keras_es.runs.workdir.Workdir` whose config has batch_size,
            epochs, seed and augment.
        model: The compiled model to start with if there is no checkpoint yet.
        data: A `keras_es.datasets.ImageDataset`.
        say: Function of a line to be shown.
        verbose: As in `model.fit`.

    Returns:
        A tuple of the trained model and its progress.

    Raises:
        keras_es.callbacks.TrainingStopped: If SIGTERM or Ctrl-C ended it early.
        RunError: If workers do not see the same checkpoints.
    """
    config, folder = workdir.config, workdir.path / "checkpoints"
    strategy = model.distribute_strategy
    path, progress, damaged = checkpoints.latest(folder)
    for problem in damaged:
        say(f"damaged checkpoint: {problem}; using the one before it")
    per_epoch = data.steps_per_epoch(config["batch_size"])
    _check_same_step(strategy, progress, folder)
    if path is not None:
        with strategy.scope():
            model = keras.models.load_model(path)
        total = per_epoch * config["epochs"]
        say(f"resuming after step {progress.step:,} of {total:,}")
    checkpoint = callbacks.AtomicCheckpoint(folder, progress=progress)
    board = [callbacks.MaskTensorBoard(workdir.path / "logs")] * workdir.chief
    progress = checkpoint.progress
    with callbacks.StopOnSignal(checkpoint) as stop:
        while progress.epoch < config["epochs"]:
            epoch, taken = divmod(progress.step, per_epoch)
            batches = data.train_batches(
                config["batch_size"],
                seed=config["seed"],
                first_step=progress.step,
                augment=config["augment"],
            )
            # An epoch that was stopped in its midst is finished by itself.
            model.fit(
                batches,
                steps_per_epoch=per_epoch - taken,
                initial_epoch=epoch,
                epochs=epoch + 1 if taken else config["epochs"],
                validation_data=validation_batches(data, strategy),
                callbacks=[*board, checkpoint, stop],
                shuffle=False,  # the stream is shuffled
                verbose=verbose,
            )
    return model, progress


def _check_same_step(strategy, progress, folder):
    """Stop if workers would go on from different steps."""
    step = -1 if progress is None else progress.step
    steps = [int(row[0]) for row in workers.tell_workers(strategy, [step])]
    if len(set(steps)) > 1:
        raise RunError(
            f"the workers see different checkpoints in {folder} (steps {steps}, -1 for "
            "none); --workdir must be one folder that all of them share"
        )


def validation_batches(data, strategy):
    """Return the test data for the progress shown in training.

    On TPU all batches have one shape, so what is left over is not in it. It is in what
    the summary says, which is measured on the exported model.
    """
    batches = data.test_batches()
    if not isinstance(strategy, tf.distribute.TPUStrategy):
        return batches
    replicas = strategy.num_replicas_in_sync
    size = min(1000, len(data.x_test)) // replicas * replicas
    return batches.rebatch(max(size, replicas), drop_remainder=True)


def finish(workdir, model, progress, data):
    """Export and evaluate the stripped model, draw the report, write the summary.

    Args:
        workdir: An entered `keras_es.runs.workdir.Workdir`.
        model: The trained model.
        progress: Its progress.
        data: The data set.

    Returns:
        The summary, a dict that JSON can hold.
    """
    rows, masks, plain = _take_masks_off(model)
    folder = workdir.path / "saved_model"
    files.replace_folder(folder, lambda partial: _export(plain, partial))
    # What is reported is what the exported file does, not what it should do.
    accuracy, loss = evaluate_saved_model(folder, data)
    summary = dict(workdir.config)
    summary |= {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "sparsity": _sparsity(rows),
        "target_sparsity": workdir.config["sparsity"],
        "parameters": int(plain.count_params()),
        "nonzero_parameters": sum(
            int(np.count_nonzero(w)) for w in plain.get_weights()
        ),
        "steps": progress.step,
        "train_seconds": round(progress.seconds, 3),
        "steps_per_second": _rate(progress),
        "saved_model": str(folder),
        "report": str(workdir.path / "report.png"),
        "input": {"shape": list(data.input_shape), "dtype": "float32", "range": [0, 1]},
        "layers": rows,
        "versions": _versions(),
    }
    title = (
        f"{summary['dataset']}, {summary['model']}, {summary['mask_optimizer']}, "
        f"seed {summary['seed']}\n{accuracy:.2%} test accuracy at "
        f"{summary['sparsity']:.1%} sparsity"
    )
    figure = plots.run_report(progress.history, masks, title, data.input_shape)
    files.replace_file(
        workdir.path / "report.png",
        lambda partial: figure.savefig(partial, dpi=100, format="png"),
    )
    summary = _finite(summary)
    files.write_text(workdir.path / "summary.json", json.dumps(summary, indent=1))
    return summary


def _take_masks_off(model):
    """Return the rows of the summary, the masks by name, and the plain model."""
    import keras_es

    weights = keras_es.masked_weights(model)
    if not weights:
        return [], {}, model
    masks = {
        callbacks.weight_name(model, w): callbacks.deployed_mask(w) for w in weights
    }
    rows = [
        {
            "weight": name,
            "shape": list(weight.shape),
            "pattern": str(weight.pattern),
            "nnz": int(np.count_nonzero(mask)),
            "size": int(mask.size),
            "sparsity": 1.0 - float(np.mean(mask)),
        }
        for weight, (name, mask) in zip(weights, masks.items(), strict=True)
    ]
    plain = keras_es.strip_masks(model)
    return rows, masks, plain


def _export(model, folder):
    """Write a SavedModel; Keras announces it at length on stdout, which is not ours."""
    with contextlib.redirect_stdout(open(os.devnull, "w")):  # noqa: SIM115
        model.export(str(folder), verbose=False)


def evaluate_saved_model(folder, data):
    """Return (accuracy, mean cross-entropy) of a SavedModel of logits on test data."""
    served = tf.saved_model.load(str(folder))
    right, loss = 0, 0.0
    for images, labels in data.test_batches():
        logits = served.serve(images).numpy().astype("float64")
        labels = labels.numpy()
        right += int(np.sum(np.argmax(logits, axis=-1) == labels))
        peak = logits.max(axis=-1, keepdims=True)
        log_sum = peak[:, 0] + np.log(np.sum(np.exp(logits - peak), axis=-1))
        loss += float(np.sum(log_sum - logits[np.arange(len(labels)), labels]))
    return right / len(data.x_test), loss / len(data.x_test)


def _sparsity(rows):
    size = sum(row["size"] for row in rows)
    return 1.0 - sum(row["nnz"] for row in rows) / size if size else 0.0


def _rate(progress):
    if not progress.timed_seconds:
        return None
    return round(progress.timed_steps / progress.timed_seconds, 2)


def _versions():
    import keras_es

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_es": keras_es.__version__,
    }


def _finite(value):
    """Replace numbers that JSON has no word for by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the table at the end: a caption, and a function of the summary."""

    caption: str
    text: object


TABLE = (
    Line("test accuracy", lambda s: f"{s['test_accuracy']:.4f}"),
    Line("test loss", lambda s: f"{s['test_loss'] or math.nan:.4f}"),
    Line("sparsity", lambda s: f"{s['sparsity']:.4f} of the masked weights"),
    Line(
        "parameters",
        lambda s: f"{s['parameters']:,}, not zero: {s['nonzero_parameters']:,}",
    ),
    Line(
        "training",
        lambda s: (
            f"{s['steps']:,} steps in {s['train_seconds']:.1f} s, "
            f"{s['steps_per_second'] or math.nan:.0f} steps/s"
        ),
    ),
    Line("SavedModel", lambda s: s["saved_model"]),
    Line("report", lambda s: s["report"]),
)


def table(summary):
    """Return the result of a run as a short table.

    Args:
        summary: The dict that `finish` returned or `Workdir.summary` read.
    """
    lines = [
        (row["weight"], f"{row['nnz']:,} of {row['size']:,}")
        for row in summary["layers"]
    ]
    lines += [(line.caption, line.text(summary)) for line in TABLE]
    width = max(len(caption) for caption, _ in lines)
    return "\n".join(f"  {caption:<{width}}  {text}" for caption, text in lines)
