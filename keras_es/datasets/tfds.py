"""Image-classification data sets of tensorflow-datasets, read into memory.

The library loads on first use; whatever it raises becomes one line for the user.
"""

import contextlib
import difflib
import logging
import math
import os
import socket
import urllib.parse
from pathlib import Path

import numpy as np
import tensorflow as tf

DATA_DIR_VARIABLE = "KERAS_ES_DATA_DIR"

# Images of varying size are resized to this many pixels a side, and larger ones too.
RESIZED = 64
LARGEST_SIDE = 96
MEMORY_LIMIT = 8 * 2**30


def load(name: str, data_dir: str | None) -> tuple[tuple[np.ndarray, ...], int]:
    """Load a data set; see `keras_es.datasets.load` for arguments and errors.

    Returns:
        A tuple (arrays, num_classes), arrays being (x_train, y_train, x_test, y_test).
    """
    tfds = _tensorflow_datasets(name)
    builder = _builder(tfds, name, data_dir)
    _require_images(tfds, builder, name)
    _download(builder, name)
    return _in_memory(builder, name)


def folder(data_dir: str | os.PathLike | None) -> str | None:
    """Return where data sets are: what was given, else what the environment says.

    Args:
        data_dir: See `keras_es.datasets.load`.
    """
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE) or None
    if data_dir is None:
        return None
    path = Path(os.path.expanduser(data_dir))
    nested = path / "tensorflow_datasets"
    return str(nested if nested.is_dir() else path)


def speech_builder(name: str, data_dir: str | None):
    """Return the builder of a data set of speech, prepared; errors as `load`'s.

    Args:
        name: Its name.
        data_dir: See `load`.
    """
    builder = _builder(_tensorflow_datasets(name), name, data_dir)
    _download(builder, name)
    return builder


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
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else "see tensorflow.org/datasets."
        )
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
    logger = logging.getLogger("urllib3.connectionpool")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _in_memory(builder, name):
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
            f"the files of the data set in {builder.data_dir} cannot be read: "
            f"{reason}. Remove them to prepare it again. Received: dataset={name!r}"
        ) from error
    if min(y_train.min(), y_test.min()) < 0:
        raise ValueError(
            f"the split {splits[1]!r} has no labels. Received: dataset={name!r}"
        )
    num_classes = info.features[label_key].num_classes
    return (x_train, y_train, x_test, y_test), num_classes


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

    examples = builder.as_dataset(split=split, as_supervised=True, shuffle_files=False)
    if resize:
        examples = examples.map(resized, num_parallel_calls=2)
    parts = list(examples.batch(1000).as_numpy_iterator())
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    return images, labels.astype("int32")
