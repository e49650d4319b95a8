"""Tables of embeddings with noise: rows are looked up, the table is never perturbed.

A member's row is E[i] + m * sigma A[i] B^T, where A[i] has r numbers and serves all
members of a draw. A table that is read backwards (tied weights) gives

    x (E + A B^T)^T = x E^T + (x B) A^T.
"""

import keras
import tensorflow as tf
from keras import ops

from keras_es.layers import tree
from keras_es.noise.layer_calls import replaced_calls

_Embedding = keras.layers.Embedding
_Reversible = getattr(keras.layers, "ReversibleEmbedding", None)


def lookups(model, variables):
    """Return the embedding layers whose table's perturbation can be split off.

    Args:
        model: Keras model.
        variables: The perturbed variables.

    Returns:
        Dict from id of a table to its layer.
    """
    perturbed = {id(v) for v in variables}
    return {
        id(layer.embeddings): layer
        for _, layer in tree.walk(model)
        if _is_lookup(layer) and id(layer.embeddings) in perturbed
    }


def _is_lookup(layer):
    """Tell whether a layer reads rows of a plain table; a subclass may do more."""
    call = type(layer).call
    reversible = _Reversible is not None and call is _Reversible.call
    if not layer.built or not (call is _Embedding.call or reversible):
        return False
    if layer.embeddings_regularizer is not None:
        return False
    # A reversible one hands its mask on in `call` itself.
    return isinstance(layer.embeddings, keras.Variable) and not (
        reversible and layer.mask_zero
    )


def perturbed_lookups(layers, perturbations, factors, multipliers):
    """Return a scope in which layers look up rows of E + N diag(m).

    Args:
        layers: What `lookups` returned.
        perturbations: Dict from key to its `FullRank` or `LowRank`.
        factors: Dict from key to the factors of its draw.
        multipliers: Dict from key to the member's multiplier, scalar or [columns].
    """
    return replaced_calls(
        {
            key: (
                layer,
                _perturbed(layer, perturbations[key], factors[key], multipliers[key]),
            )
            for key, layer in layers.items()
        }
    )


def _perturbed(layer, perturbation, factors, multiplier):
    def call(inputs, reverse=False):
        if not reverse:
            return forwards(inputs)
        if not layer.tie_weights:
            return type(layer).call(layer, inputs, reverse=True)
        return backwards(inputs)

    def forwards(inputs):
        ids = ops.cast(inputs, "int32")
        table = tf.convert_to_tensor(layer.embeddings.value)
        parts = [tf.cast(factor, table.dtype) for factor in factors]
        rows, first = (ops.take(t, ids, axis=0) for t in (table, parts[0]))
        change = perturbation.product(first, parts)
        rows = rows + tf.cast(multiplier, table.dtype) * change
        return ops.cast(rows, layer.compute_dtype)

    def backwards(inputs):
        dtype = layer.reverse_dtype or keras.backend.result_type(
            inputs.dtype, layer.embeddings.dtype
        )
        x = ops.cast(inputs, dtype)
        table = ops.cast(layer.embeddings.value, dtype)
        first, *rest = (tf.cast(factor, dtype) for factor in factors)
        turned = tf.cast(multiplier, dtype) * x
        for factor in rest:
            turned = ops.matmul(turned, factor)
        logits = ops.matmul(x, ops.transpose(table))
        logits = logits + ops.matmul(turned, ops.transpose(first))
        cap = layer.logit_soft_cap
        return logits if cap is None else ops.tanh(logits / cap) * cap

    return call
