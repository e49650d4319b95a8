"""Weights that share one mask: those whose patterns name the same group."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_es.layers.sparse_weight import SparseWeight


def members(weights: Sequence[SparseWeight]) -> list[list[int]]:
    """Return the places of each group's weights, in the order of their first ones."""
    found: dict[str, list[int]] = {}
    for i, weight in enumerate(weights):
        if weight.pattern.group is not None:
            found.setdefault(weight.pattern.group, []).append(i)
    return list(found.values())


def agreed(weights: Sequence[SparseWeight], values: Sequence[Any]) -> list[Any]:
    """Return values of units in which each weight of a group has the group's mean.

    What chooses units by such values chooses the same in all of the group. Of weights
    without a group the values are those that came.

    Args:
        weights: `MaskedWeight`s.
        values: A float tensor of each, with a number for each of its units.
    """
    found = list(values)
    for places in members(weights):
        mean = ops.mean(ops.stack([values[i] for i in places]), axis=0)
        for i in places:
            found[i] = mean
    return found


def of_the_first(weights: Sequence[SparseWeight], values: Sequence[Any]) -> list[Any]:
    """Return values in which each weight of a group has those of its first member."""
    found = list(values)
    for places in members(weights):
        for i in places:
            found[i] = values[places[0]]
    return found


def check(weights: Sequence[SparseWeight]) -> None:
    """Refuse groups whose weights cannot have one mask.

    Raises:
        ValueError: If their numbers of units differ, or those of active ones.
    """
    for places in members(weights):
        first = weights[places[0]]
        for other in (weights[i] for i in places[1:]):
            if (first.units, first.unit_count) != (other.units, other.unit_count):
                raise ValueError(
                    f"Weights of the group {first.pattern.group!r} share one mask and "
                    "need as many units each, and the same sparsity. Name another "
                    f"group for one of them. Received: {_line(first)}, {_line(other)}"
                )


def begin_alike(weights: Sequence[SparseWeight], seed: int) -> None:
    """Give each group first scores of its own, drawn once from (seed, its place)."""
    for index, places in enumerate(members(weights)):
        draw = keras.initializers.RandomNormal(stddev=1.0, seed=seed + 15485863 * index)
        scores = draw(tuple(weights[places[0]].mask_scores.shape), dtype="float32")
        for i in places:
            weights[i].mask_scores.assign(scores)


def _line(weight):
    return f"{weight.name!r} with {weight.unit_count} of {weight.units}"
