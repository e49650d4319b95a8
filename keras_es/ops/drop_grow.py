"""Drop the weakest units and grow others: one move of SET and RigL."""

from keras import ops

from keras_es.ops import selection


def dropped_count(drop_fraction, count):
    """Return round(alpha * k), how many of k active units are replaced.

    Args:
        drop_fraction: alpha in [0, 1), float64 scalar.
        count: k, integer.

    Returns:
        int32 scalar tensor.
    """
    share = ops.convert_to_tensor(drop_fraction, dtype="float64")
    return ops.cast(ops.round(share * count), "int32")


def kept_units(magnitude, active, count):
    """Return the active units of the largest magnitude, exactly `count`.

    Args:
        magnitude: Sum of |w| over each unit, float32, at least 0.
        active: Booleans of that shape, the units of the mask.
        count: Integer scalar, at most the number of active units.

    Returns:
        Booleans of that shape.
    """
    return selection.top_k_mask(ops.where(active, magnitude, -1.0), count)


def growth_scores(kept, growth):
    """Return scores whose decoding keeps what is kept and fills up by growth.

    Any pattern's `decode` then grows as many units as were dropped, where its rule
    allows them: within a group of `NByM` as many as it lost. What was just dropped may
    grow again, as in the papers.

    Args:
        kept: Booleans, the units that stay.
        growth: float32 of that shape, finite.
    """
    return ops.where(kept, float("inf"), growth)
