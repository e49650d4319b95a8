"""Masks that `set_weights` and `tf.train.Checkpoint` bring, looked at before they come.

The number of non-zeros that a layer was made for is no variable, so masks of another
sparsity would fit: reports and logs would say one thing, the deployed mask another.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_es.layers.sparse_weight import SparseWeight
from keras_es.patterns import Unstructured


def check_weights(
    masked_weights: list[SparseWeight],
    variables: Any,
    values: Any,
    denser: bool,
    exchanged: Callable[[SparseWeight], float | None] | None = None,
) -> None:
    """Refuse weights for `set_weights` whose masks are of another sparsity or pattern.

    Args:
        masked_weights: Those of the layer or model.
        variables: Its variables, in the order of `values`.
        values: Arrays.
        denser: Whether masks may be denser than asked, as in the middle of a schedule.
        exchanged: None, or of an optimizer under which weights exchange units, so that
            their total counts, a function that returns what a weight costs, or None.

    Raises:
        ValueError: If a mask does not fit.
    """
    if len(variables) != len(values):
        return  # Keras says so.
    brought = {id(v): value for v, value in zip(variables, values)}
    missing, cost_missing, one_each = 0, 0.0, 0.0
    for weight in masked_weights:
        own = (weight.kernel, *weight.choice)
        if all(id(v) in brought for v in own):
            store = {v.name: brought[id(v)] for v in own}
            if exchanged:
                lacking = weight.nnz - int(np.sum(brought[id(weight.choice[0])]))
                missing += lacking
                cost = exchanged(weight)
                cost_missing += lacking * (1.0 if cost is None else cost)
                # Rounding leaves less than a unit of each of what may be spent.
                one_each += 0.0 if cost is None else cost * weight.size / weight.units
                weight.check_loaded({**store, weight.count_name: weight.unit_count})
            else:
                weight.check_set(store, denser or weight.deployed_nnz() > weight.nnz)
    if cost_missing > one_each:
        wanted = sum(weight.nnz for weight in masked_weights)
        raise ValueError(
            f"The weights have {wanted - missing} non-zeros under their masks; those "
            f"of this model have {wanted} together. Set those of a model that "
            "`sparsify` made with the same sparsity. "
            f"Received: {wanted - missing} non-zeros, expected {wanted}"
        )


class Count(tf.train.experimental.PythonState):
    """What a checkpoint has of a sparse weight besides variables.

    TensorFlow reads it before it restores the variables, so that what does not fit is
    refused as a whole. Checkpoints without it are restored without a look.

    Args:
        weight: The `SparseWeight`.
    """

    def __init__(self, weight: SparseWeight) -> None:
        self.weight = weight

    def serialize(self) -> str:
        """Return the number of non-zeros that is asked for, and the pattern."""
        return json.dumps({"nnz": int(self.weight.nnz), "pattern": self._pattern()})

    def deserialize(self, string_value: bytes) -> None:
        """Compare what `serialize` returned.

        Raises:
            ValueError: If the checkpoint is of another sparsity or pattern.
        """
        weight, brought = self.weight, json.loads(string_value)
        nnz, pattern = brought["nnz"], brought["pattern"]
        wider = isinstance(weight.pattern, Unstructured)
        if nnz == weight.nnz and (wider or pattern == self._pattern()):
            return
        raise ValueError(
            f"The checkpoint's {weight.name!r} has {nnz} non-zeros of {weight.size}, a "
            f"sparsity of {1 - nnz / weight.size:.4g}, under {pattern}; this layer has "
            f"{weight.nnz}, a sparsity of {1 - weight.nnz / weight.size:.4g}, under "
            f"{self._pattern()}. Nothing was restored. Restore it into a model that "
            "`sparsify` made with the same sparsity and pattern. "
            f"Received: nnz={nnz}, pattern={pattern}"
        )

    def _pattern(self) -> str:
        return str(self.weight.pattern)
