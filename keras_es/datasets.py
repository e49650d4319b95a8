"""Image-classification data sets in memory, in an order that is a pure function.

The position of every example in training follows from (seed, step) alone: a run that
stops at any step and goes on from there sees exactly what it would have seen.
"""

import contextlib
import dataclasses
import difflib
import math
import os
import socket
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

DATA_DIR_VARIABLE = "KERAS_ES_DATA_DIR"

# Images of varying size are resized to this many pixels a side, and larger ones too.
RESIZED = 64
LARGEST_SIDE = 96
MEMORY_LIMIT = 8 * 2**30
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

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (height, width, channels) of one image."""
        return tuple(self.x_train.shape[1:])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of batches in which every training example is seen."""
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
            first_step: Number of batches to skip.
            augment: Whether to shift images by up to 4 pixels (zeros come in) and to
                flip half of them, left to right.

        Returns:
            A `tf.data.Dataset` of (float32 images in [0, 1], int32 labels).
        """
        size = len(self.x_train)
        first_epoch, skipped = divmod(first_step * batch_size, size)
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.x_train), tf.constant(self.y_train)

        def one_epoch(epoch):
            key = tf.stack([tf.constant(seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(
                tf.range(size), seed=key, alg="philox"
            )
            draws = _augmentation(key, size) if augment else ()
            return tf.data.Dataset.from_tensor_slices((order, *draws))

        def batch(order, *draws):
            pictures = tf.gather(images, order)
            if draws:
                pictures = _shift_and_flip(pictures, *draws)
            return self._scaled(pictures), tf.gather(labels, order)

        epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
        stream = epochs.flat_map(one_epoch).skip(skipped)
        stream = stream.batch(batch_size, drop_remainder=True)
        return stream.map(batch, num_parallel_calls=2, deterministic=True).prefetch(4)

    def test_batches(self, batch_size: int = 1000) -> tf.data.Dataset:
        """Return the test examples in order, in batches of `batch_size` or a bit less.

        The largest size that divides their number is taken if it is at least half of
        what was asked: batches of one size compile once.
        """
        size = len(self.x_test)
        divisors = [d for d in range(1, min(batch_size, size) + 1) if size % d == 0]
        if divisors[-1] * 2 >= batch_size or divisors[-1] == size:
            batch_size = divisors[-1]
        batches = tf.data.Dataset.from_tensor_slices((self.x_test, self.y_test))
        batches = batches.batch(batch_size)
        return batches.map(lambda x, y: (self._scaled(x), y)).prefetch(2)

    def _scaled(self, images):
        return tf.cast(images, tf.float32) * tf.constant(self.scale, tf.float32)


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
    if name == "digits":
        return _load_digits()
    tfds = _tensorflow_datasets(name)
    builder = _builder(tfds, name, _resolve_data_dir(data_dir))
    _require_images(tfds, builder, name)
    _download(builder, name)
    return _in_memory(tfds, builder, name)


def _load_digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16.0
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels.astype("int32"), test_size=0.2, random_state=0, stratify=labels
    )
    return ImageDataset("digits", x_train, y_train, x_test, y_test, num_classes=10)


def _resolve_data_dir(data_dir):
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE) or None
    if data_dir is None:
        return None
    nested = Path(data_dir) / "tensorflow_datasets"
    return str(nested if nested.is_dir() else Path(data_dir))


def _tensorflow_datasets(name):
    try:
        import tensorflow_datasets as tfds

        tfds.builder  # noqa: B018  (the lazy import happens here)
    except (ImportError, AttributeError) as error:
        raise FileNotFoundError(
            f"the data set {name!r} needs a working tensorflow-datasets; its import "
            f"failed ({error}). Install `tensorflow-datasets`, with TensorFlow 2.17 to "
            f"2.19 also `tensorflow-metadata<1.18`. Received: dataset={name!r}"
        ) from error
    return tfds


def _builder(tfds, name, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = ["digits", *tfds.list_builders()]
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see tensorflow.org/datasets."
        raise ValueError(
            f"unknown data set; {hint} Received: dataset={name!r}"
        ) from error
    except Exception as error:  # Names with a bad version or config, for example.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the data set cannot be opened: {reason}. Received: dataset={name!r}"
        ) from error


def _require_images(tfds, builder, name):
    features, keys = builder.info.features, builder.info.supervised_keys
    if keys is not None and len(keys) == 2 and all(k in features for k in keys):
        image, label = (features[key] for key in keys)
        if isinstance(image, tfds.features.Image) and isinstance(
            label, tfds.features.ClassLabel
        ):
            return
    raise ValueError(
        "expected a data set of one image and one class label for each example; this "
        f"one has the features {sorted(features)}. Received: dataset={name!r}"
    )


def _download(builder, name):
    """Prepare the data set if it is not there yet, or say why that is impossible."""
    if Path(builder.data_dir).exists():
        return
    problem = f"the data set {name!r} is not at {builder.data_dir} and cannot be "
    remedy = (
        "Give --data_dir or KERAS_ES_DATA_DIR a folder that has it. "
        f"Received: dataset={name!r}"
    )
    if not _any_host_answers(builder):
        raise FileNotFoundError(f"{problem}downloaded: no network. {remedy}")
    try:
        with _quiet_retries():
            builder.download_and_prepare()
    except Exception as error:  # Whatever went wrong, the set is not there.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise FileNotFoundError(f"{problem}prepared: {reason}. {remedy}") from error


def _any_host_answers(builder):
    """Whether one of the set's servers has an address, before minutes of retries."""
    if any(name.lower() in ("http_proxy", "https_proxy") for name in os.environ):
        return True
    try:
        hosts = {urllib.parse.urlparse(url).hostname for url in builder.url_infos}
    except Exception:  # Without checksums nothing is known: let the download try.
        return True
    for host in filter(None, hosts):
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, 443)
            return True
    return not hosts


@contextlib.contextmanager
def _quiet_retries():
    """Keep urllib3 from printing each of its retries."""
    import logging

    logger = logging.getLogger("urllib3.connectionpool")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _in_memory(tfds, builder, name):
    info = builder.info
    image_key, label_key = info.supervised_keys
    shape, resize = _stored_shape(info.features[image_key].shape)
    splits = _splits(info.splits, name)
    needed = math.prod(shape) * sum(info.splits[s].num_examples for s in splits)
    if needed > MEMORY_LIMIT:
        raise ValueError(
            f"the images need {needed / 2**30:.0f} GiB of memory; data sets of up to "
            f"{MEMORY_LIMIT / 2**30:.0f} GiB are supported. Received: dataset={name!r}"
        )
    try:
        (x_train, y_train), (x_test, y_test) = (
            _read(builder, split, resize) for split in splits
        )
    except tf.errors.OpError as error:
        reason = " ".join(error.message.split())[:200]
        raise FileNotFoundError(
            f"the files of the data set in {builder.data_dir} cannot be read: {reason}. "
            f"Remove the folder to prepare it again. Received: dataset={name!r}"
        ) from error
    if min(y_train.min(), y_test.min()) < 0:
        raise ValueError(
            f"the split {splits[1]!r} has no labels. Received: dataset={name!r}"
        )
    return ImageDataset(
        name,
        x_train,
        y_train,
        x_test,
        y_test,
        num_classes=info.features[label_key].num_classes,
        scale=1.0 / float(np.iinfo(x_train.dtype).max),
    )


def _stored_shape(shape):
    """Return the shape in memory of images of this shape, and whether to resize."""
    if None in shape or max(shape[:2]) > LARGEST_SIDE:
        return (RESIZED, RESIZED, shape[2] or 3), True
    return shape, False


def _splits(available, name):
    if "train" not in available:
        raise ValueError(
            f"expected a split `train`; the data set has {sorted(available)}. "
            f"Received: dataset={name!r}"
        )
    for test in ("test", "validation"):
        if test in available and available[test].num_examples:
            return "train", test
    return "train[10%:]", "train[:10%]"


def _read(builder, split, resize):
    """Read a whole split into two arrays."""

    def resized(image, label):
        image = tf.image.resize(image, [RESIZED, RESIZED], antialias=True)
        return tf.cast(tf.round(image), tf.uint8), label

    examples: Any = builder.as_dataset(
        split=split, as_supervised=True, shuffle_files=False
    )
    if resize:
        examples = examples.map(resized, num_parallel_calls=2)
    parts = list(examples.batch(1000).as_numpy_iterator())
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return images, labels.astype("int32")
