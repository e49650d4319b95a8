"""Deployment of new masks, and what becomes of weights that come back."""

import tensorflow as tf

from keras_es.distribution.collectives import assign_all
from keras_es.optimizers.decoding import decoded
from keras_es.optimizers.guarded import is_average

COUNTERS = {
    "generation": "int64",
    "nonfinite_members": "int64",
    "skipped_steps": "int64",
    "mask_flip_ratio": "float32",
}
"""Variables of every method, and their types; all begin at 0."""


def add_counters(optimizer):
    """Create the variables of every method, as attributes of an optimizer."""
    for name, dtype in COUNTERS.items():
        counter = optimizer.add_variable(
            (), dtype=dtype, name=name, aggregation="only_first_replica"
        )
        # Straight into __dict__: Keras and TensorFlow would track it.
        optimizer.__dict__[name] = counter


def deploy_scores(optimizer, new_scores, ok):
    """Set scores (None: they stay), deploy their masks, and count the generation.

    Args:
        optimizer: The `MaskOptimizer`.
        new_scores: List of new scores, or None.
        ok: Boolean scalar; if False scores and masks stay.
    """
    flipped, assignments = 0.0, []
    if new_scores is not None:
        new_scores = [
            tf.where(ok, scores, masked.mask_scores.value)
            for masked, scores in zip(optimizer.masked_weights, new_scores)
        ]
        new_scores, units, state = decoded(optimizer, new_scores, ok)
        optimizer.masks_decoded(new_scores, units, ok)
        assignments, flipped = deploy(optimizer, new_scores, units)
        assignments += state
    share = share_of_weights(optimizer.masked_weights, flipped)
    assignments += [
        (optimizer.generation, optimizer.generation.value + 1),
        (optimizer.mask_flip_ratio, share),
    ]
    assign_all(assignments)


def count(optimizer, valid, ok):
    """Count the members of a step that failed, and the step if all did."""
    failed = tf.reduce_sum(tf.cast(tf.logical_not(valid), tf.int64))
    skipped = tf.cast(tf.logical_not(ok), tf.int64)
    assign_all(
        [
            (optimizer.nonfinite_members, optimizer.nonfinite_members.value + failed),
            (optimizer.skipped_steps, optimizer.skipped_steps.value + skipped),
        ]
    )


def share_of_weights(masked_weights, number):
    """Return a number of weights as a share of all of some, float32 scalar."""
    size = sum(m.size for m in masked_weights) or 1
    return tf.cast(tf.cast(number, tf.float64) / size, tf.float32)


def logs(optimizer, frozen=()):
    """Return the logs of a step: counters, and the sparsity of the masks.

    Args:
        optimizer: The `MaskOptimizer`.
        frozen: Masked weights that count for the sparsity besides those that move.
    """
    masked_weights = [*optimizer.masked_weights, *frozen]
    if optimizer.active_units is not None:
        nonzeros = optimizer.active_units.nonzeros()
    else:
        nonzeros = sum(m.nnz for m in optimizer.masked_weights)
    for masked in frozen:  # Perhaps in the middle of a schedule: not `nnz`.
        active = tf.cast(masked.stored_units(), tf.int64)
        nonzeros += tf.reduce_sum(active) * (masked.size // masked.units)
    zeros = sum(m.size for m in masked_weights) - nonzeros
    # All but the generation.
    found = {name: getattr(optimizer, name).value for name in [*COUNTERS][1:]}
    found = {
        name: tf.cast(tf.convert_to_tensor(value), tf.float32)
        for name, value in found.items()
    }
    found["sparsity"] = share_of_weights(masked_weights, zeros)
    return found


def deploy(optimizer, scores, units):
    """Return what sets new scores and masks of all masked weights.

    Args:
        optimizer: The `MaskOptimizer`.
        scores: List of new scores.
        units: List of boolean unit masks.

    Returns:
        List of (variable, tensor), and the number of weights that changed.
    """
    assignments, flipped = [], 0.0
    for masked, values, chosen in zip(optimizer.masked_weights, scores, units):
        slots = optimizer.inner.slots.get(id(masked.kernel), [])
        deployed, changed = masked.deploy(values, chosen, slots)
        assignments += deployed
        flipped += changed
        if masked.stores_inactive:
            assignments += _moved(optimizer, masked, chosen, slots)
    return assignments, flipped


def _moved(optimizer, masked, units, slots):
    """Return what becomes of a kernel and its slots under a new unit mask."""
    before = kernel = tf.convert_to_tensor(masked.kernel.value)
    assignments = []
    if optimizer.latents.resets_slots:
        kernel, assignments = _fresh(optimizer, masked, before, units, slots)
    kernel = masked.constrained(kernel, units)
    return assignments if kernel is before else [(masked.kernel, kernel), *assignments]


def _fresh(optimizer, masked, kernel, units, slots):
    """Return the kernel and what sets slots, where weights come back and start anew."""
    grown, assignments = masked.grown(units), []
    if optimizer.latents.grows_from_zero:
        kernel = tf.where(grown, tf.zeros_like(kernel), kernel)
    for slot in slots:
        old = tf.convert_to_tensor(slot.value)
        if is_average(slot):
            start = tf.cast(kernel, old.dtype)
        else:
            start = optimizer.inner.slot_starts[id(slot)](old.shape, dtype=slot.dtype)
        assignments.append((slot, tf.where(grown, start, old)))
    return kernel, assignments
