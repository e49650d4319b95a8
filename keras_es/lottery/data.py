"""Data of a run: an endless stream of batches, each a function of (seed, step)."""

import functools
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_es.datasets.images import ImageDataset
from keras_es.runs.identity import evenly_spaced

_WANTED = (
    "a tuple (x, y) or (x, y, sample_weight) of arrays, an ImageDataset of "
    "keras_es.datasets, or a function (seed, first_step) -> tf.data.Dataset"
)


def stream(data, batch_size, seed, first_step):
    """Return the batches from a step on.

    Args:
        data: Arrays, an `ImageDataset`, or a function (see `find`).
        batch_size: Examples in a batch.
        seed: Integer in [0, 2**31).
        first_step: How many batches were seen already.

    Raises:
        ValueError: If `data` is nothing of that kind, or has fewer examples than a
            batch.
    """
    if isinstance(data, ImageDataset):
        return data.train_batches(batch_size, seed=seed, first_step=first_step)
    if callable(data):
        return _batches(data(seed, first_step))
    parts = arrays(data)
    size = len(keras.tree.flatten(parts)[0])
    per_epoch = size // batch_size
    if not per_epoch:
        raise ValueError(
            f"`batch_size` must be at most the {size} examples of `data`. "
            f"Received: batch_size={batch_size}"
        )
    with tf.device("CPU:0"):
        parts = keras.tree.map_structure(tf.constant, parts)

    def batches(epoch):
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(
            tf.range(size), seed=key, alg="philox"
        )
        rows = tf.reshape(order[: per_epoch * batch_size], (per_epoch, batch_size))
        return tf.data.Dataset.from_tensor_slices(rows)

    def batch(rows):
        return keras.tree.map_structure(lambda part: tf.gather(part, rows), parts)

    first_epoch, before = divmod(first_step, per_epoch)
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    return epochs.flat_map(batches).skip(before).map(batch).prefetch(4)


def arrays(data):
    """Return the structure of arrays (x, y) or (x, y, sample_weight) of some data.

    Raises:
        ValueError: If it has none.
    """
    if isinstance(data, ImageDataset):
        x = data.x_train.astype("float32") * np.float32(data.scale)
        return x, data.y_train
    fits = isinstance(data, tuple) and len(data) in (2, 3)
    if fits and data[-1] is None and len(data) == 3:  # as `fit` takes it
        data = data[:2]
    if not fits or not are_of_one_size(sizes(data)):
        raise ValueError(
            f"`data` must be {_WANTED}, with as many examples in each array. "
            f"Received: data={_described(data)}"
        )
    return keras.tree.lists_to_tuples(data)  # a list would become one tensor


def sizes(data):
    """Return the numbers of examples of arrays, a set; None of what is no array."""
    parts = keras.tree.flatten(data)
    return {len(p) if getattr(p, "shape", ()) else None for p in parts}


def are_of_one_size(found):
    """Tell whether `sizes` found as many examples in each array, and any."""
    return len(found) == 1 and found.isdisjoint({None, 0})


def fingerprint(data):
    """Return what tells data from others, for JSON: shapes, types, a sum of examples.

    The sum is over at most 4,096 examples, evenly spaced. Of a function it is the name.
    """
    if isinstance(data, ImageDataset):
        data = data.x_train, data.y_train
    if callable(data):
        return qualified(data)
    return [_digest(part) for part in keras.tree.flatten(arrays(data))]


def digest(values):
    """Return one sum of the bytes of a list of arrays, as files keep them."""
    values = (np.ascontiguousarray(for_file(v)) for v in values)
    return zlib.crc32(b"".join(v.tobytes() for v in values))


def for_file(array):
    """Return an array of a type that NumPy's files know: bfloat16 as float32."""
    return array if array.dtype.kind in "fiub" else array.astype("float32")


def qualified(function):
    """Return the name of a function, the same in every process.

    Of a lambda, whose name says nothing, also a sum of what it computes; of a
    `functools.partial` the function, and the arguments that are numbers or text.
    """
    if isinstance(function, functools.partial):
        given = {
            **{str(i): a for i, a in enumerate(function.args)},
            **function.keywords,
        }
        known = {k: v for k, v in given.items() if isinstance(v, int | float | str)}
        return f"{qualified(function.func)} {known}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    if code is not None and name.endswith("<lambda>"):
        constants = [c for c in code.co_consts if isinstance(c, int | float | str)]
        text = repr((code.co_code, code.co_names, constants)).encode()
        name = f"{name} {zlib.crc32(text)}"
    return f"{getattr(function, '__module__', '')}.{name}"


def _batches(found):
    """Return what a function as data returned, if it is batches."""
    if not isinstance(found, tf.data.Dataset):
        raise ValueError(
            "A function as `data` must return a tf.data.Dataset of batches. "
            f"Received: data(seed, first_step) of type {type(found).__name__}"
        )
    return found


def _digest(part):
    some = np.asarray(evenly_spaced(part))
    if some.dtype.kind == "O":  # Strings: their bytes would be addresses.
        some = np.frombuffer(repr(some.tolist()).encode(), "uint8")
    return [list(part.shape), str(part.dtype), digest([some])]


def _described(data):
    if isinstance(data, tuple):
        shapes = [getattr(p, "shape", type(p).__name__) for p in data]
        return f"a tuple of {shapes}"
    return repr(data)[:200]
