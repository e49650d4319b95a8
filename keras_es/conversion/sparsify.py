"""From a Keras model to a masked one."""

from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es._arguments import seed as check_seed
from keras_es.conversion.clone import clone
from keras_es.conversion.models import check_model, with_train_step
from keras_es.conversion.plan import make_plan
from keras_es.layers import groups, tree
from keras_es.layers.masked_weight import refresh_mask
from keras_es.patterns import Pattern

INITIAL_MASKS = ("random", "magnitude")


def sparsify(
    model: keras.Model,
    sparsity: float | None = None,
    *,
    pattern: Pattern | Mapping[str, Pattern] | None = None,
    allocation: str | Mapping[str, float] = "uniform",
    exclude: Collection[str] = (),
    include_embeddings: bool = False,
    initial_mask: str = "random",
    seed: int = 0,
) -> keras.Model:
    """Return a copy of a model in which layers are swapped for their masked twins.

    Layers at any depth are reached (in MultiHeadAttention, Bidirectional,
    TimeDistributed, composites of your own). Weights, trained or not, are carried
    over. Layers without a masked twin stay as they are; `sparsity_report` lists them.
    The model itself is not changed.

    A layer that is masked already is masked anew, unless what is asked of it is what it
    has: at another sparsity its scores and resting weights stay, so that the sparser
    mask lies within the denser one; under another pattern it is masked as
    `strip_masks(model)` would be. Block-sparse layers and masked classes of your own
    stay as they are.

    Args:
        model: Built Sequential, functional or nested `keras.Model`, or a subclassed
            one whose class derives from `keras_es.ESMixin`.
        sparsity: Share of zeros in [0, 1) of the masked weights. Each weight keeps at
            least one unit, and the report says what share that is. May be left out if
            `allocation` is a dict (layers it does not name then stay dense) or every
            pattern is `NByM`.
        pattern: A pattern for all, or a dict from layer path, weight path or regular
            expression to one. Default `Unstructured()`, of embeddings `Rows()`, or the
            pattern that a masked layer has.
        allocation: "uniform" (each weight the same sparsity), "erk" or "square_root"
            (larger weights sparser, by the sum of their sides or by how many units they
            have), or a dict from layer path, weight path or regular expression to
            sparsity.
        exclude: List of layer paths or regular expressions of layers that stay as
            they are: dense, or with the masks that they have.
        include_embeddings: Whether tables of `Embedding` and `ReversibleEmbedding` are
            masked as well, by whole rows (words) unless `pattern` says otherwise. Else
            they stay as they are.
        initial_mask: "random", or "magnitude": keep the units with the largest sum of
            |w|, for a model that is trained already.
        seed: Integer seed of the first scores.

    Returns:
        An `ESModel` or `ESSequential`, not compiled. A model of a class of its own
        keeps it: a KerasHub task comes back as a subclass of its class, with its
        `generate` and preprocessor, and compiled as its constructor does.

    Raises:
        ValueError: If an argument is out of range, names no layer, or a pattern does
            not divide a kernel (the error names the layer, its shape and the pattern),
            or the model cannot be copied by its config, or its class has a
            `train_step` of its own.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> sparse = sparsify(model, sparsity=0.9)
    >>> keras_es.sparsity_report(sparse).nonzero_masked
    64
    """
    check_model(model)
    seed = check_seed("seed", seed)
    _check_names(initial_mask, exclude)
    if not isinstance(include_embeddings, bool):
        raise ValueError(
            "`include_embeddings` must be True or False. "
            f"Received: include_embeddings={include_embeddings!r}"
        )
    # In the scope of the model's own `tf.distribute` strategy, if it has one.
    with model.distribute_strategy.scope():
        copy = clone(model)
        plan = make_plan(
            copy, sparsity, pattern, allocation, exclude, include_embeddings
        )
        return with_train_step(_masked(copy, plan, initial_mask, seed))


def _masked(copy, plan, initial_mask, seed):
    """Return a model with its layers masked as planned, in place."""
    layers = list(tree.walk(copy))
    masked_before = any(tree.is_twin(layer) for _, layer in layers)
    for index, (path, layer) in enumerate(layers):
        if path in plan:
            before = {
                m.attribute: m.effective_value() for m in tree.masked_weights(layer)
            }
            sparsities, chosen = plan[path]
            _mask(layer, sparsities, chosen, seed + 104729 * index)
            if initial_mask == "magnitude":
                _score_by_magnitude(layer, before)
    _agree(copy, seed, fresh=initial_mask == "random" and not masked_before)
    return copy


def _check_names(initial_mask, exclude):
    if not isinstance(initial_mask, str) or initial_mask not in INITIAL_MASKS:
        raise ValueError(
            f"`initial_mask` must be one of {INITIAL_MASKS}. "
            f"Received: initial_mask={initial_mask!r}"
        )
    fine = isinstance(exclude, (list, tuple, set, frozenset))
    if not fine or not all(isinstance(rule, str) for rule in exclude):
        raise ValueError(
            "`exclude` must be a list of layer paths or regular expressions. "
            f"Received: exclude={exclude!r}"
        )


def _mask(layer, sparsities, chosen, mask_seed):
    """Swap a layer for its masked twin, or give a masked one other masks."""
    if not tree.is_twin(layer):
        tree.swap_in(layer, sparsities, chosen, mask_seed)
        return
    old = tree.mask_arguments(layer)
    sparsities = {**old["sparsity"], **sparsities}
    chosen = {**old["pattern"], **chosen}
    if (sparsities, chosen) == (old["sparsity"], old["pattern"]):
        return
    kept = {
        m.attribute: (m.pattern, m.kernel.value + 0, m.mask_scores.value + 0)
        for m in tree.masked_weights(layer)
    }
    tree.swap_out(layer, layer.name)
    tree.swap_in(layer, sparsities, chosen, mask_seed)
    for masked in tree.masked_weights(layer):
        pattern, latent, scores = kept[masked.attribute]
        if pattern == masked.pattern:
            masked.kernel.assign(latent)
            masked.mask_scores.assign(scores)
            refresh_mask(masked)


def _agree(model, seed, fresh):
    """Give the weights of a group one mask: a new one, or that of their mean scores."""
    weights = tree.masked_weights(model)
    groups.check(weights)
    if fresh:
        groups.begin_alike(weights, seed)
    scores = groups.agreed(weights, [m.mask_scores.value for m in weights])
    for places in groups.members(weights):
        for i in places:
            weights[i].mask_scores.assign(scores[i])
            refresh_mask(weights[i])


def _score_by_magnitude(layer, before):
    """Set scores to normal quantiles of the rank of |w| summed over each unit.

    Quantiles, so that the scores have the scale of random ones and sigma its meaning.

    Args:
        layer: A masked layer.
        before: Dict from attribute to the effective weight, if it was masked before.
    """
    masked: Any
    for masked in tree.masked_weights(layer):
        value = before.get(masked.attribute, masked.kernel.value)
        size = masked.reduce(tf.abs(value)).numpy().astype("float64")
        ranks = np.argsort(np.argsort(size.ravel(), kind="stable"), kind="stable")
        share = (ranks + 0.5) / size.size
        scores = tf.math.ndtri(tf.constant(share, tf.float64))
        masked.mask_scores.assign(
            tf.reshape(tf.cast(scores, tf.float32), masked.mask_scores.shape)
        )
        refresh_mask(masked)
