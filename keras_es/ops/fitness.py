"""Fitness shaping: from the losses of a population to utilities.

Fitness is the loss: lower is better. Utilities are what the search gradient is
weighted with: higher is better, they sum to zero. A shaping function has one
signature, `(fitness [n]) -> utilities [n]`, and sees +inf for a member that failed.
What it returns that is not finite counts as the lowest of its finite utilities.
"""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_es._arguments import deserialized


def baseline(fitness, valid, antithetic_shared):
    """Subtract what does not depend on the noise, and mark failed members +inf.

    Members of an antithetic pair share their examples. Where different pairs see
    different examples, the pair's mean is subtracted: it is the examples' doing.

    Args:
        fitness: [n] losses, members of a pair adjacent.
        valid: [n] booleans, False for a member whose loss is not finite.
        antithetic_shared: True if pairs saw different examples.

    Returns:
        [n] centred losses; +inf where not valid.
    """
    safe = ops.where(valid, fitness, 0.0)
    weight = ops.cast(valid, fitness.dtype)
    if antithetic_shared:
        safe_pairs = ops.reshape(safe, (-1, 2))
        counts = ops.sum(ops.reshape(weight, (-1, 2)), axis=1, keepdims=True)
        mean = ops.sum(safe_pairs, axis=1, keepdims=True) / ops.maximum(counts, 1.0)
        centred = ops.reshape(safe_pairs - mean, (-1,))
    else:
        centred = safe - ops.sum(safe) / ops.maximum(ops.sum(weight), 1.0)
    return ops.where(valid, centred, float("inf"))


def in_single_precision(losses, by_rank):
    """Return float64 losses as float32 ones that a strategy takes alike.

    float32 cannot tell 1e9 + 1 from 1e9 + 2, and has no 1e39.

    Args:
        losses: [n] float64 losses; NaN and infinity for members that failed.
        by_rank: True if only their order counts: each becomes the number of losses
            below it. Else the lowest is subtracted from all, which changes none of
            their differences.

    Returns:
        [n] float32 losses; +inf for members that failed.
    """
    infinity = ops.cast(float("inf"), losses.dtype)
    known = ops.where(ops.isfinite(losses), losses, infinity)
    if by_rank:
        below = ops.expand_dims(known, 0) < ops.expand_dims(known, 1)
        told = ops.sum(ops.cast(below, "float32"), axis=1)
    else:
        lowest = ops.min(known)
        known = known - ops.where(ops.isfinite(lowest), lowest, 0.0)
        told = ops.cast(known, "float32")
    return ops.where(ops.isfinite(losses), told, float("inf"))


def within_groups(fitness):
    """Return the mean over groups of what a member is worth within each.

    z_kj = (f_kj - mean_k f_kj) / std_k f_kj,    fitness_k = mean_j z_kj,

    over the finite f_kj of a group j: hard groups count as much as easy ones. What is
    not finite counts 0, neither good nor bad, as does a group of equal values.

    Args:
        fitness: [n, groups], lower is better.

    Returns:
        [n] finite numbers.

    References:
        Shao et al. 2024, DeepSeekMath (GRPO), arXiv 2402.03300.
    """
    finite = ops.isfinite(fitness)
    count = ops.maximum(ops.sum(ops.cast(finite, fitness.dtype), axis=0), 1.0)
    safe = ops.where(finite, fitness, 0.0)
    centred = ops.where(finite, safe - ops.sum(safe, axis=0) / count, 0.0)
    std = ops.sqrt(ops.sum(ops.square(centred), axis=0) / count)
    # Rounding of a mean does not make equal values differ.
    differ = std > 1e-6 * ops.max(ops.abs(safe), axis=0)
    z = ops.where(differ, centred / ops.where(differ, std, 1.0), 0.0)
    return ops.mean(z, axis=1)


def _spread_over_ties(fitness, table):
    """Give rank r the entry table[r]; equal losses share the mean of their entries."""
    n = fitness.shape[0]
    row, column = ops.expand_dims(fitness, 1), ops.expand_dims(fitness, 0)
    better = ops.sum(ops.cast(column < row, "int32"), axis=1)
    equal = ops.sum(ops.cast(ops.equal(column, row), "int32"), axis=1)
    total = ops.concatenate([ops.zeros((1,), table.dtype), ops.cumsum(table)])
    ends = ops.take(total, ops.minimum(better + equal, n))
    return (ends - ops.take(total, better)) / ops.cast(equal, "float32")


def centered_rank(fitness):
    """Ranks spread evenly over [-1/2, 1/2], the best member gets 1/2.

    u_k = 1/2 - (k - 1)/(n - 1), k the rank from the best.

    Args:
        fitness: [n] losses, lower is better; +inf ranks worst.

    Returns:
        [n] utilities.

    References:
        Salimans et al. 2017, arXiv 1703.03864.
    """
    n = fitness.shape[0]
    table = 0.5 - ops.arange(n, dtype="float32") / max(n - 1, 1)
    return _spread_over_ties(fitness, table)


def nes(fitness):
    """Logarithmic utilities of natural evolution strategies.

    u_k = max(0, ln(n/2 + 1) - ln k) / sum_j max(0, ln(n/2 + 1) - ln j) - 1/n.

    Args:
        fitness: [n] losses, lower is better; +inf ranks worst.

    Returns:
        [n] utilities that sum to zero.

    References:
        Schaul, Glasmachers, Schmidhuber 2011, section 3.
    """
    n = fitness.shape[0]
    ranks = ops.arange(1, n + 1, dtype="float32")
    highest = ops.log(ops.cast(n / 2.0 + 1.0, ranks.dtype))
    raw = ops.maximum(0.0, highest - ops.log(ranks))
    return _spread_over_ties(fitness, raw / ops.sum(raw) - 1.0 / n)


def best_only(fitness):
    """All weight to the best member: u_1 = 1 - 1/n, others -1/n (PBIL)."""
    n = fitness.shape[0]
    table = ops.cast(ops.equal(ops.arange(n), 0), "float32") - 1.0 / n
    return _spread_over_ties(fitness, table)


def recombination(fitness):
    """Weights of the better half, which sum to 1: those of CMA-ES.

    w_k = max(0, ln((n + 1)/2) - ln k) / sum_j max(0, ln((n + 1)/2) - ln j).

    Args:
        fitness: [n] losses, lower is better; +inf ranks worst.

    Returns:
        [n] weights.

    References:
        Hansen 2016, The CMA evolution strategy: a tutorial, arXiv 1604.00772, (48).
    """
    n = fitness.shape[0]
    ranks = ops.arange(1, n + 1, dtype="float32")
    table = ops.maximum(0.0, math.log((n + 1) / 2.0) - ops.log(ranks))
    return _spread_over_ties(fitness, table / ops.sum(table))


def _finite(fitness):
    """Replace +inf by the worst finite loss (0 if there is none)."""
    finite = ops.isfinite(fitness)
    worst = ops.max(ops.where(finite, fitness, -float("inf")))
    worst = ops.where(ops.isfinite(worst), worst, 0.0)
    return ops.where(finite, fitness, worst)


def standardize(fitness):
    """u = -(f - mean f)/std f; 0 for a population of equal losses."""
    utilities = raw(fitness)
    # In units of the largest, whose square float32 holds whatever the losses are.
    largest = ops.max(ops.abs(utilities))
    utilities = utilities / ops.where(largest > 0, largest, 1.0)
    std = ops.sqrt(ops.mean(ops.square(utilities)))
    return utilities / ops.where(std > 0, std, 1.0)


def raw(fitness):
    """u = -(f - mean f): unbiased for the gradient of the loss itself."""
    above = _finite(fitness)
    # So equal losses are 0, and no sum of huge ones overflows.
    above = above - ops.min(above)
    return ops.sum(above / above.shape[0]) - above


SHAPINGS = {
    "centered_rank": centered_rank,
    "nes": nes,
    "best_only": best_only,
    "standardize": standardize,
    "raw": raw,
}

BY_RANK = (centered_rank, nes, best_only)
"""Those that see only the order of the losses."""


def shaped(shaping, fitness, known):
    """Return the utilities by a function that may be a user's.

    Args:
        shaping: Function fitness [n] -> utilities [n].
        fitness: [n] losses; +inf for members that failed.
        known: Boolean scalar, whether any member has a loss.

    Returns:
        [n] finite utilities in the type of `fitness`, all 0 if none is known.

    Raises:
        ValueError: If the function returns another shape.
    """
    utilities = ops.cast(shaping(fitness), fitness.dtype)
    if tuple(utilities.shape) != tuple(fitness.shape):
        raise ValueError(
            "`fitness_shaping` must return a utility for each member, of shape "
            f"{tuple(fitness.shape)}. Received: shape={tuple(utilities.shape)}"
        )
    # A function of a user's may leave a failed member's infinity as it is.
    finite = ops.isfinite(utilities)
    lowest = ops.min(ops.where(finite, utilities, float("inf")))
    utilities = ops.where(finite, utilities, lowest)
    return ops.where(known & ops.any(finite), utilities, ops.zeros_like(utilities))


def get(identifier):
    """Return a shaping function by name, or the function that was given.

    Args:
        identifier: One of "centered_rank", "nes", "best_only", "standardize",
            "raw", a function `fitness [n] -> utilities [n]`, or a serialized one.

    Returns:
        The function.

    Raises:
        ValueError: If the name is not known.
    """
    wanted = f"one of {sorted(SHAPINGS)} or a function fitness -> utilities"
    found = identifier
    if isinstance(identifier, str):
        found = SHAPINGS.get(identifier)
    elif isinstance(identifier, dict):
        found = deserialized("fitness_shaping", identifier, Callable, wanted)
    if not callable(found):
        raise ValueError(
            f"`fitness_shaping` must be {wanted}. Received: "
            f"fitness_shaping={identifier!r}"
        )
    return found


def serialize(shaping):
    """Return the name of a built-in shaping function, else its Keras config."""
    for name, function in SHAPINGS.items():
        if function is shaping:
            return name
    return keras.saving.serialize_keras_object(shaping)
