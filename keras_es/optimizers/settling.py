"""The number of non-zeros after training, where it fell along a schedule.

Masks follow a schedule in training steps. What is put there by others, such as the
weights of an earlier epoch that `EarlyStopping` restores, they do not see.
"""

import numpy as np
from keras import ops

from keras_es.distribution.collectives import assign_all
from keras_es.optimizers.decoding import generation_steps
from keras_es.optimizers.deployment import deploy

_STOP_EARLY = (
    "To stop early, let a callback choose among the epochs after the schedule's end: "
    "EarlyStopping(..., start_from_epoch=...)."
)


def settle(optimizer):
    """Deploy what a schedule that has ended asks for, exactly; call it outside steps.

    Args:
        optimizer: Built `MaskOptimizer`.

    Returns:
        A warning if masks are, or were, denser than the schedule is; else None.
    """
    active = optimizer.active_units
    if active is None:
        return None
    # Between steps, so numbers and not tensors.
    scheduled = [int(count) for count in active.at(optimizer.steps_done())]
    found = _counts(optimizer)
    known = [int(count) for count in active.now()]
    last = [m.unit_count for m in optimizer.masked_weights]
    totals = optimizer.decoding.totals
    restored = np.any(np.array(totals(found)) > totals(known))
    if scheduled != last:
        if not restored:
            return None
        return (
            f"Masks have {_nonzeros(optimizer, found)} non-zeros, more than the "
            "sparsity schedule had reached: weights of an earlier epoch were restored. "
            "If training goes on, masks follow the schedule again and end with "
            f"{_nonzeros(optimizer, last)}; as they are, they are denser. {_STOP_EARLY}"
        )
    if totals(found) == totals(last):
        return None
    _deploy_last(optimizer, last)
    steps = generation_steps(optimizer)
    why = "Weights of an earlier epoch were restored."
    if not restored:
        why = f"Masks move at the end of a generation, which takes {steps} steps."
    return (
        f"The sparsity schedule has ended, and masks had {_nonzeros(optimizer, found)} "
        f"non-zeros for the {_nonzeros(optimizer, last)} that were asked for. {why} "
        "They have been pruned now, so what was measured before does not hold: call "
        f"`evaluate`. {_STOP_EARLY}"
    )


def _counts(optimizer):
    """Return how many units of each weight are active as it is deployed."""
    return [
        int(ops.sum(ops.cast(m.stored_units(), "int64")))
        for m in optimizer.masked_weights
    ]


def _nonzeros(optimizer, counts):
    return sum(
        m.size // m.units * count for m, count in zip(optimizer.masked_weights, counts)
    )


def _deploy_last(optimizer, counts):
    """Keep the best units of each weight, by what the method judges them by."""
    scores = optimizer.pruning_scores()
    scores, units, state = optimizer.decoding.decode(scores, counts)
    optimizer.masks_decoded(scores, units, True)
    assignments, _ = deploy(optimizer, scores, units)
    counts = np.array(counts, "int64")
    assign_all([*assignments, *state, (optimizer.active_units.counts, counts)])
