"""Callbacks that keep, watch and stop a run. None is needed for a correct result."""

import signal
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_es import plots
from keras_es.distribution import workers
from keras_es.distribution.trainer import JoinedStep
from keras_es.runs import checkpoints, files

__all__ = ["AtomicCheckpoint", "MaskTensorBoard", "StopOnSignal", "TrainingStopped"]


class AtomicCheckpoint(keras.callbacks.Callback):
    """Saves the whole model after each epoch, so that no kill can leave half a file.

    Each checkpoint is written under another name in the same folder, flushed to the
    disk and renamed; a digest beside it tells a damaged one. `keras.callbacks.
    ModelCheckpoint` writes in place instead, and `BackupAndRestore` keeps one. With
    several workers only the chief writes; all of them have to read the same folder.

    Args:
        folder: Where to put `step-*.keras` and `step-*.json`.
        keep: Number of checkpoints that stay, at least 1.
        progress: What `AtomicCheckpoint.restore` returned, if training goes on.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> checkpoint = keras_es.callbacks.AtomicCheckpoint(folder)
    >>> _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[checkpoint])
    >>> restored, progress, damaged = checkpoint.restore(folder)
    >>> progress.epoch, damaged
    (2, [])
    >>> bool(np.all(restored.predict(x, verbose=0) == model.predict(x, verbose=0)))
    True
    """

    def __init__(self, folder, keep=2, progress=None):
        super().__init__()
        if keep < 1:
            raise ValueError(
                f"At least one checkpoint must stay. Received: keep={keep}"
            )
        self.folder = Path(folder)
        self.keep = keep
        self.progress = progress or checkpoints.Progress()

    @staticmethod
    def restore(folder):
        """Load the newest whole checkpoint of a folder.

        Returns:
            A tuple (model, progress, damaged): the compiled model and its progress, or
            None twice if there is no whole checkpoint; and a list of strings that name
            the newer ones that are damaged.
        """
        path, progress, damaged = checkpoints.latest(folder)
        model = None if path is None else keras.models.load_model(path)
        return model, progress, damaged

    def save(self):
        """Save the model as it is now, at the end of a step, if this is the chief."""
        self._stop_clock()
        if not workers.is_chief(self.model.distribute_strategy):
            return None
        return checkpoints.save(self.model, self.folder, self.progress, self.keep)

    def on_train_begin(self, logs=None):
        self._begun = time.monotonic()
        self._first_step = True

    def on_epoch_begin(self, epoch, logs=None):
        self._batch = -1
        self._last_time = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        steps, self._batch = batch - self._batch, batch
        self.progress.step += steps
        now = time.monotonic()
        if not self._first_step:
            self.progress.timed_steps += steps
            self.progress.timed_seconds += now - self._last_time
        self._first_step, self._last_time = False, now

    def on_epoch_end(self, epoch, logs=None):
        self.progress.epoch = epoch + 1
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.progress.history.append({"epoch": epoch + 1} | row)
        self.save()

    def _stop_clock(self):
        now = time.monotonic()
        self.progress.seconds += now - self._begun
        self._begun = now


class TrainingStopped(Exception):  # noqa: N818  (not an error)
    """Training ended at a signal.

    Args:
        signum: Number of the signal.
        step: Number of steps after which the run will continue.
    """

    def __init__(self, signum, step):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum = signum
        self.step = step
        self.exit_code = 128 + signum


class StopOnSignal(keras.callbacks.Callback):
    """Ends `fit` at the next step after SIGTERM or Ctrl-C, with a checkpoint.

    It is a context manager too: signals are caught inside the `with` block only. A
    second signal does not wait for the step. With several workers, a signal to one of
    them stops all after the same step.

    Args:
        checkpoint: The `AtomicCheckpoint` of the same `fit`, listed before this one.

    Raises:
        TrainingStopped: From `fit`, when a signal came.

    Example:

    >>> import signal, tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> checkpoint = keras_es.callbacks.AtomicCheckpoint(tempfile.mkdtemp())
    >>> with keras_es.callbacks.StopOnSignal(checkpoint) as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     model.fit(x, y, batch_size=1, verbose=0, callbacks=[checkpoint, stop])
    Traceback (most recent call last):
    keras_es.callbacks.TrainingStopped: stopped by SIGTERM after step 1
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, checkpoint):
        super().__init__()
        self.checkpoint = checkpoint
        self._received = None
        self._previous = {}

    def __enter__(self):
        for signum in self.SIGNALS:
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_):
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def on_train_begin(self, logs=None):
        if self._joined:
            self.model.train_function.request_stop(False)

    def on_train_batch_begin(self, batch, logs=None):
        if self._joined and self._received is not None:
            self.model.train_function.request_stop()

    def on_train_batch_end(self, batch, logs=None):
        stops = self._received is not None
        if self._joined:
            stops = self.model.train_function.stop_requested
        if stops:
            self.checkpoint.save()
            # No worker leaves before the checkpoint is there.
            workers.tell_workers(self.model.distribute_strategy, [0])
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        if self._received is not None and not self._joined:
            self._stop()

    @property
    def _joined(self):
        return isinstance(self.model.train_function, JoinedStep)

    def _handle(self, signum, frame):
        if self._received is not None:
            self._stop()
        self._received = signum

    def _stop(self):
        signum = self._received or signal.SIGTERM  # another worker's
        raise TrainingStopped(signum, self.checkpoint.progress.step)


class MaskTensorBoard(keras.callbacks.Callback):
    """Writes TensorBoard logs: scalars, pictures of masks, histograms of scores.

    Works without the package `tensorboard`, which recent versions of TensorFlow do not
    bring along; only looking at the logs needs it.

    Args:
        log_dir: Folder of the logs; `train` and `validation` are made inside.
        picture_size: Largest width and height of a mask picture, in pixels; larger
            masks are averaged down to it, and brightness is then density.

    Example:

    >>> import pathlib, tempfile
    >>> logs = pathlib.Path(tempfile.mkdtemp())
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> board = keras_es.callbacks.MaskTensorBoard(logs)
    >>> _ = model.fit(np.ones((4, 2)), np.ones(4), verbose=0, callbacks=[board])
    >>> sorted(path.name for path in logs.iterdir())
    ['train']
    """

    def __init__(self, log_dir, picture_size=256):
        super().__init__()
        self.log_dir = Path(log_dir)
        self.picture_size = picture_size
        self._writers = {}

    def on_epoch_end(self, epoch, logs=None):
        with files.writing(self.log_dir):
            for name, value in (logs or {}).items():
                validation = name.startswith("val_")
                with self._writer("validation" if validation else "train"):
                    write_scalar("epoch_" + name.removeprefix("val_"), value, epoch)
            with self._writer("train"):
                self._write_learning_rate(epoch)
                self._write_masks(epoch)
            for writer in self._writers.values():
                writer.flush()

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, name):
        if name not in self._writers:
            path = str(self.log_dir / name)
            self._writers[name] = tf.summary.create_file_writer(path)
        return self._writers[name].as_default()

    def _write_learning_rate(self, epoch):
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None) or optimizer
        rate = getattr(optimizer, "learning_rate", None)
        if rate is not None:
            write_scalar("epoch_learning_rate", float(rate), epoch)

    def _write_masks(self, epoch):
        from keras_es import masked_weights

        for weight in masked_weights(self.model):
            name = weight_name(self.model, weight)
            mask = deployed_mask(weight)
            picture = plots.mask_picture(mask, self.picture_size)
            write_picture(f"masks/{name}", picture, epoch)
            scores = keras.ops.convert_to_numpy(weight.mask_scores)
            write_histogram(f"scores/{name}", scores, epoch)


def deployed_mask(weight):
    """Return the deployed mask of a weight as an array.

    It is one of blocks where only the active ones are stored.
    """
    mask = weight.kernel_mask
    mask = weight.stored_units() if mask is None else mask
    return keras.ops.convert_to_numpy(mask)


def weight_name(model, weight):
    """Return the name of a masked weight, the same before and after a reload.

    Keras leaves the model's own name out of the paths of a model that was loaded.
    """
    return weight.name.removeprefix(f"{model.name}/")


def write_scalar(tag, value, step):
    """Write one number to the default summary writer."""
    _write("scalars", tag, tf.constant(value, tf.float32), step)


def write_picture(tag, picture, step):
    """Write a picture [height, width] in [0, 1], its brightest point as white."""
    peak = max(float(picture.max()), 1e-12)
    pixels = np.round(255 * np.asarray(picture) / peak).astype("uint8")
    height, width = pixels.shape
    png = tf.io.encode_png(pixels[..., None])
    _write("images", tag, tf.stack([str(width), str(height), png]), step)


def write_histogram(tag, values, step, buckets=30):
    """Write the histogram of an array; values that are not finite are left out."""
    values = np.ravel(values)
    counts, edges = np.histogram(values[np.isfinite(values)], buckets)
    rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
    _write("histograms", tag, tf.constant(rows, tf.float64), step)


def _write(plugin, tag, tensor, step):
    """Write a summary as the plugin of TensorBoard reads it."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
    )
    tf.summary.write(tag, tensor, step=step, metadata=metadata)
