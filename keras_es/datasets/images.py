"""Image-classification data sets in memory, in an order that is a pure function.

The position of every example in training follows from (seed, step) alone: a run that
stops at any step and goes on from there sees exactly what it would have seen.
"""

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from keras_es._arguments import boolean, integer, positive, text
from keras_es.datasets import tfds

__all__ = ["ImageDataset", "load"]

# Shifted images: up to this many pixels in each direction.
SHIFT = 4


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """Images and labels in memory, as training and test batches.

    Args:
        name: The name of the data set.
        x_train: Array [n, height, width, channels] of numbers in [0, 1 / scale].
        y_train: Integer array [n] of labels in [0, num_classes).
        x_test: Array [m, height, width, channels].
        y_test: Integer array [m].
        num_classes: Number of classes.
        scale: Factor that brings the stored numbers to [0, 1]; 1/255 for 8-bit images.

    Example:

    >>> digits = keras_es.datasets.load("digits")
    >>> digits.input_shape, digits.num_classes, len(digits.x_train), len(digits.x_test)
    ((8, 8, 1), 10, 1437, 360)
    >>> images, labels = next(iter(digits.train_batches(64, seed=0)))
    >>> images.shape, labels.shape
    (TensorShape([64, 8, 8, 1]), TensorShape([64]))
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    scale: float = 1.0

    def __post_init__(self):
        """Check that images and labels fit each other."""
        text("name", self.name)
        for images, labels in (("x_train", "y_train"), ("x_test", "y_test")):
            _check_images(images, getattr(self, images))
            _check_labels(labels, getattr(self, labels), len(getattr(self, images)))
        for name, kind in (("num_classes", integer(1)), ("scale", positive)):
            object.__setattr__(self, name, kind(name, getattr(self, name)))

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return len(self.x_train)

    @property
    def test_size(self) -> int:
        """Number of test examples."""
        return len(self.x_test)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (height, width, channels) of one image."""
        return tuple(self.x_train.shape[1:])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in which every training example is seen."""
        batch_size = _batch_size(batch_size)
        return math.ceil(len(self.x_train) / batch_size)

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        first_step: int = 0,
        augment: bool = False,
    ) -> tf.data.Dataset:
        """Return an endless stream of training batches from step `first_step` on.

        The permutations of epochs 0, 1, 2, … follow each other, each drawn from
        (seed, epoch), and are cut into batches of one size: no example is dropped, and
        no step is compiled twice for the sake of a smaller last batch.

        Args:
            batch_size: Examples in a batch, at least 1.
            seed: Integer in [0, 2**31).
            first_step: Number of batches to skip, at least 0.
            augment: Whether to shift images by up to 4 pixels (zeros come in) and to
                flip half of them, left to right.

        Returns:
            A `tf.data.Dataset` of (float32 images in [0, 1], int32 labels).

        Raises:
            ValueError: If an argument is out of range.
        """
        batch_size = _batch_size(batch_size)
        seed, augment = _seed(seed), boolean("augment", augment)
        first_step = integer(0)("first_step", first_step)
        size = len(self.x_train)
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.x_train), tf.constant(self.y_train)

        def shuffled(epoch):
            key = tf.stack([tf.constant(seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(
                tf.range(size), seed=key, alg="philox"
            )
            return order, *(_augmentation(key, size) if augment else ())

        def begun_in(epoch):
            """Return the batches that begin in an epoch; the last go beyond its end."""
            begin = -epoch * size % batch_size
            count = (size - begin + batch_size - 1) // batch_size
            following = [shuffled(epoch + i) for i in range(1 + -(-batch_size // size))]
            rows = [tf.concat(parts, 0)[begin:] for parts in zip(*following)]
            # Whole batches: to go by single examples took most of the time.
            return tf.data.Dataset.from_tensor_slices(
                tuple(
                    tf.reshape(
                        r[: count * batch_size],
                        tf.concat([[count, batch_size], tf.shape(r)[1:]], 0),
                    )
                    for r in rows
                )
            )

        def batch(order, *draws):
            pictures = tf.gather(images, order)
            if draws:
                pictures = _shift_and_flip(pictures, *draws)
            return self._scaled(pictures), tf.gather(labels, order)

        first_epoch = first_step * batch_size // size
        before = -(-first_epoch * size // batch_size)  # batches begun earlier
        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        stream = epochs.flat_map(begun_in).skip(first_step - before)
        stream = stream.map(batch, num_parallel_calls=2, deterministic=True).prefetch(4)
        return stream if augment else stream.with_options(_one_thread())

    def test_batches(self, batch_size: int = 1000) -> tf.data.Dataset:
        """Return the test examples in order, in batches of `batch_size` or a bit less.

        The largest size that divides their number is taken if it is at least half of
        what was asked: batches of one size compile once.

        Raises:
            ValueError: If `batch_size` is no integer of at least 1.
        """
        batch_size = _batch_size(batch_size)
        size = len(self.x_test)
        divisors = [d for d in range(1, min(batch_size, size) + 1) if size % d == 0]
        if divisors[-1] * 2 >= batch_size or divisors[-1] == size:
            batch_size = divisors[-1]
        batches = tf.data.Dataset.from_tensor_slices((self.x_test, self.y_test))
        batches = batches.batch(batch_size)
        return batches.map(lambda x, y: (self._scaled(x), y)).prefetch(2)

    def _scaled(self, images):
        return tf.cast(images, tf.float32) * tf.constant(self.scale, tf.float32)


def _check_images(name, images):
    numbers = isinstance(images, np.ndarray) and images.dtype.kind in "fiub"
    if not numbers or images.ndim != 4 or not images.size:
        raise ValueError(
            f"`{name}` must be an array of numbers [n, height, width, channels], n at "
            f"least 1. Received: {name} {_described(images)}"
        )


def _check_labels(name, labels, count):
    integers = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
    if not integers or labels.shape != (count,):
        raise ValueError(
            f"`{name}` must be an array of integers with a label for each of the "
            f"{count} images. Received: {name} {_described(labels)}"
        )


def _described(value):
    if isinstance(value, np.ndarray):
        return f"of shape {value.shape}, {value.dtype}"
    return f"of {type(value).__name__}"


def _batch_size(value):
    if integer(1)("batch_size", value) >= 2**31:
        raise ValueError(
            f"`batch_size` must be less than 2**31. Received: batch_size={value!r}"
        )
    return int(value)


def _seed(value):
    if integer(0)("seed", value) >= 2**31:
        raise ValueError(
            f"`seed` must be an integer in [0, 2**31). Received: seed={value!r}"
        )
    return int(value)


def _one_thread():
    """Return the options of a pipeline that only copies: its threads cost more.

    They take turns with those of the step; a batch of 128 takes 0.14 ms of processor
    time with one and 0.25 ms with many.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.max_intra_op_parallelism = 1
    options.threading.private_threadpool_size = 1
    return options


def _augmentation(key, size):
    """Draw the shifts [size, 2] in [0, 2 SHIFT] and flips [size] of one epoch."""
    # Folded in, so that these draws are not those which shuffled the epoch.
    shift_key, flip_key = (
        tf.random.experimental.stateless_fold_in(key, tag, alg="philox")
        for tag in (1, 2)
    )
    shifts = tf.random.stateless_uniform(
        [size, 2], shift_key, 0, 2 * SHIFT + 1, tf.int32, alg="philox"
    )
    flips = tf.random.stateless_uniform([size], flip_key, alg="philox") < 0.5
    return shifts, flips


def _shift_and_flip(images, shifts, flips):
    """Cut [batch, h, w, c] out of its zero-padded self at `shifts`; flip some."""
    height, width = images.shape[1:3]
    border = [SHIFT, SHIFT]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    rows = shifts[:, :1] + tf.range(height)
    columns = shifts[:, 1:] + tf.range(width)
    columns = tf.where(flips[:, None], columns[:, ::-1], columns)
    moved = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(moved, columns, axis=2, batch_dims=1)


def load(name: str, data_dir: str | os.PathLike | None = None) -> ImageDataset:
    """Load an image-classification data set by name.

    Args:
        name: `"digits"`, the 1,797 images that come with scikit-learn, of which a
            fixed fifth is for test; or any data set of tensorflow-datasets that has
            one image and one class label for each example, such as `"mnist"`.
        data_dir: Where tensorflow-datasets keeps or is to put its files; also a folder
            that contains such a folder named `tensorflow_datasets`. By default the
            environment variable KERAS_ES_DATA_DIR, else `~/tensorflow_datasets`.
            `"digits"` has none.

    Returns:
        An `ImageDataset`. Test examples are those of the split `test`, else of
        `validation`, else the first tenth of `train`. Images that vary in size or are
        larger than 96 pixels are resized to 64 x 64.

    Raises:
        ValueError: If there is no such data set, or it is not of images and labels, or
            too large for the memory.
        FileNotFoundError: If it is not there and cannot be downloaded.

    Example:

    >>> keras_es.datasets.load("digits").y_train.shape
    (1437,)
    """
    if not isinstance(name, str):
        raise ValueError(
            "`name` must be the name of a data set, such as 'digits' or 'mnist'. "
            f"Received: name={name!r}"
        )
    if not isinstance(data_dir, str | os.PathLike | None):
        raise ValueError(
            f"`data_dir` must be a path or None. Received: data_dir={data_dir!r}"
        )
    if name == "digits":
        if data_dir is not None:
            raise ValueError(
                "'digits' comes with scikit-learn and is in no folder: leave "
                f"`data_dir` out. Received: data_dir={data_dir!r}"
            )
        return _load_digits()
    arrays, num_classes = tfds.load(name, tfds.folder(data_dir))
    scale = 1.0 / float(np.iinfo(arrays[0].dtype).max)
    x_train, y_train, x_test, y_test = arrays
    return ImageDataset(name, x_train, y_train, x_test, y_test, num_classes, scale)


def _load_digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16.0
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype("int32"), test_size=0.2, random_state=0, stratify=labels
    )
    return ImageDataset("digits", x_train, y_train, x_test, y_test, num_classes=10)
