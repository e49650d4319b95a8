"""Batches of rows in time, and how particles share them."""

import keras
import tensorflow as tf


def nothing(particles):
    """Return the data set of a task that has none: its batches are not looked at.

    They are as long as there are particles, for strategies divide batches.
    """
    return tf.data.Dataset.from_tensors(tf.zeros([particles])).repeat()


def indices(particles, steps):
    """Return a data set of the number of each step, once for each particle."""
    return tf.data.Dataset.range(steps).map(lambda i: tf.fill([particles], i))


def element_spec(x):
    """Return the specs of a data set's batches.

    Raises:
        ValueError: If it is no data set, or its batches' shapes are not known.
    """
    if not isinstance(x, tf.data.Dataset):
        raise ValueError(
            "Data must be a `tf.data.Dataset` of batches whose rows go on from batch "
            f"to batch, or None. Received: x of type {type(x).__name__}"
        )
    spec = x.element_spec
    if isinstance(spec, tuple) and len(spec) == 1:
        spec = spec[0]
    for leaf in tf.nest.flatten(spec):
        if leaf.shape.rank is None or leaf.shape.rank < 2 or None in leaf.shape[:2]:
            raise ValueError(
                "Batches must have leaves [rows, time, ...] of known rows and time: "
                "`.batch(n, drop_remainder=True)`. "
                f"Received: a leaf of shape {leaf.shape}"
            )
    return spec


def step_spec(spec, rows):
    """Return the specs [rows, ...] of what a particle gets in one step."""
    return tf.nest.map_structure(
        lambda s: tf.TensorSpec((rows, *s.shape[2:]), s.dtype), spec
    )


def rows_of(spec, particles, length=None, wanted=None):
    """Return how many rows of a batch a particle has.

    Args:
        spec: As `element_spec` returns it.
        particles: Number of particles that share the batch.
        length: Steps that the batch must have, or None.
        wanted: Rows that a particle must have, or None.

    Raises:
        ValueError: If particles do not divide the rows, or a number is another.
    """
    first = tf.nest.flatten(spec)[0].shape
    for leaf in tf.nest.flatten(spec):
        if leaf.shape[:2] != first[:2]:
            raise ValueError(
                "All leaves of a batch must have the same rows and time. "
                f"Received: shapes {first} and {leaf.shape}"
            )
    if first[0] % particles:
        raise ValueError(
            "The rows of a batch must be a multiple of `particles`, each of which has "
            f"rows of its own. Received: {first[0]} rows, particles={particles}"
        )
    if length is not None and first[1] != length:
        raise ValueError(
            "The second axis of a batch must be a window's steps. Received: "
            f"{first[1]} steps, unroll_length={length}"
        )
    rows = first[0] // particles
    if wanted not in (None, rows):
        raise ValueError(
            f"The model of the task has batches of {wanted} rows, so the data must "
            f"have {wanted} for each particle. Received: {rows}"
        )
    return rows


def sequences_of(spec, rows, replicas):
    """Return how many sequences, of so many rows each, the batches of `evaluate` have.

    Raises:
        ValueError: If rows, or replicas, do not divide them.
    """
    count, rest = divmod(tf.nest.flatten(spec)[0].shape[0], rows)
    if rest or count % replicas:
        raise ValueError(
            f"The rows of a batch must be a multiple of {rows * replicas}: {rows} for "
            "each sequence, of which replicas have equally many. Received: "
            f"{count * rows + rest} rows, replicas={replicas}"
        )
    return count


def by_step(data, particles, rows):
    """Turn leaves [particles * rows, steps, ...] into [steps, particles, rows, ...]."""

    def turned(x):
        x = tf.reshape(x, (particles, rows, *x.shape[1:]))
        return tf.transpose(x, (2, 0, 1, *range(3, x.shape.rank)))

    return tf.nest.map_structure(turned, data)


def by_row(outputs, copies, particles):
    """Turn [steps, copies * particles, rows, ...] into [all rows, steps, ...]."""

    def turned(x):
        steps, _, rows, *rest = x.shape
        x = tf.transpose(x, (1, 2, 0, *range(3, x.shape.rank)))
        return tf.reshape(x, (copies * particles * rows, steps, *rest))

    return tf.nest.map_structure(turned, outputs)


def metric_specs(spec, outputs):
    """Return the `KerasTensor`s of targets and outputs that metrics are built for.

    Args:
        spec: As `element_spec` returns it, of (x, y).
        outputs: Structure of specs [members, rows, ...] of a step's outputs.
    """

    def tensor(s):
        return keras.KerasTensor((None, None, *s.shape[2:]), s.dtype.name)

    return tensor(spec[1]), tf.nest.map_structure(tensor, outputs)


def unwrapped(data):
    """Return a batch without the tuple that Keras puts around a single element."""
    if isinstance(data, (list, tuple)) and len(data) == 1:
        return data[0]
    return data
