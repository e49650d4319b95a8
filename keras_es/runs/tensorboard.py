"""Logs of a run for TensorBoard: scalars, pictures of masks, histograms of scores."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import _files as files
from keras_es import plots
from keras_es._arguments import integer
from keras_es.datasets.audio import from_int16
from keras_es.layers import tree


class MaskTensorBoard(keras.callbacks.Callback):
    """Writes TensorBoard logs: scalars, pictures of masks, histograms of scores.

    Works without the package `tensorboard`, which recent versions of TensorFlow do not
    bring along; only looking at the logs needs it.

    Args:
        log_dir: Folder of the logs; `train` and `validation` are made inside.
        picture_size: Largest width and height of a mask picture, in pixels; larger
            masks are averaged down to it, and brightness is then density. At least 1.

    Raises:
        ValueError: If `log_dir` is no path, or `picture_size` no such integer.

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

    def __init__(self, log_dir: str | os.PathLike, picture_size: int = 256):
        super().__init__()
        self.log_dir = files.expanded("log_dir", log_dir)
        self.picture_size = integer(1)("picture_size", picture_size)
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch, logs=None):
        with files.writing(self.log_dir):
            for name, value in (logs or {}).items():
                validation = name.startswith("val_")
                with self._writer("validation" if validation else "train"):
                    write_scalars("epoch_" + name.removeprefix("val_"), value, epoch)
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
        for weight in tree.masked_weights(self.model):
            name = weight_name(self.model, weight)
            mask = deployed_mask(weight)
            picture = plots.mask_picture(mask, self.picture_size)
            write_picture(f"masks/{name}", picture, epoch)
            scores = keras.ops.convert_to_numpy(weight.mask_scores)
            write_histogram(f"scores/{name}", scores, epoch)


def deployed_mask(weight: Any) -> np.ndarray:
    """Return the deployed mask of a weight as an array.

    It is one of blocks where only the active ones are stored.
    """
    return keras.ops.convert_to_numpy(weight.deployed_mask())


def weight_name(model: keras.Model, weight: Any) -> str:
    """Return the name of a masked weight, the same before and after a reload.

    Keras leaves the model's own name out of the paths of a model that was loaded.
    """
    return weight.name.removeprefix(f"{model.name}/")


@contextlib.contextmanager
def writer(folder: str | os.PathLike) -> Iterator[None]:
    """Make a summary writer the default one for a while, with a file of its own."""
    with files.writing(folder):
        own = tf.summary.create_file_writer(str(folder))
        with own.as_default():
            yield
        own.close()


def write_scalar(tag: str, value: float, step: int) -> None:
    """Write one number to the default summary writer."""
    _write("scalars", tag, tf.constant(value, tf.float32), step)


def write_scalars(tag: str, value: Any, step: int) -> None:
    """Write a number, or each of an array's: a metric may have one for each class."""
    values = np.asarray(value)
    for index in np.ndindex(values.shape):
        write_scalar("/".join(map(str, (tag, *index))), float(values[index]), step)


def write_picture(tag: str, picture: np.ndarray, step: int) -> None:
    """Write a picture [height, width] in [0, 1], its brightest point as white."""
    peak = max(float(picture.max()), 1e-12)
    pixels = np.round(255 * np.asarray(picture) / peak).astype("uint8")
    height, width = pixels.shape
    png = tf.io.encode_png(pixels[..., None])
    _write("images", tag, tf.stack([str(width), str(height), png]), step)


def write_histogram(tag: str, values: np.ndarray, step: int, buckets: int = 30) -> None:
    """Write the histogram of an array; values that are not finite are left out."""
    values = np.ravel(values)
    counts, edges = np.histogram(values[np.isfinite(values)], buckets)
    rows = np.stack([edges[:-1], edges[1:], counts], axis=1)
    _write("histograms", tag, tf.constant(rows, tf.float64), step)


def write_audio(tag: str, samples: np.ndarray, sample_rate: int, step: int) -> None:
    """Write sound, 16-bit samples [T]."""
    wav = tf.audio.encode_wav(from_int16(samples)[:, None], sample_rate)
    # The plugin's own message: field 2, the encoding, is 11 for a wav file.
    _write("audio", tag, tf.stack([[wav, ""]]), step, content=b"\x10\x0b")


def _write(plugin, tag, tensor, step, content=b""):
    """Write a summary as the plugin of TensorBoard reads it."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(
            plugin_name=plugin, content=content
        )
    )
    tf.summary.write(tag, tensor, step=step, metadata=metadata)
