"""Which weights `sparsify` masks, by which pattern and how far."""

import math
from collections.abc import Mapping
from typing import Any

from keras_es import patterns
from keras_es.conversion.allocation import (
    allocate,
    check_rules,
    choose,
    is_rules,
)
from keras_es.layers import tree
from keras_es.layers.masked import latent_of, named_in_errors
from keras_es.layers.sparse_layer import check_sparsity
from keras_es.layers.tree import matches

Plan = dict[str, tuple[dict[str, float], dict[str, patterns.Pattern]]]
"""Path of a layer -> sparsity and pattern of each of its weights to be masked."""


def make_plan(
    model, sparsity, pattern, allocation, exclude, include_embeddings
) -> Plan:
    """Return the layers to mask, or to mask anew; see `sparsify` for the arguments."""
    weights, layers, current = _find_weights(model, include_embeddings)
    _check_excluded(exclude, layers)
    weights = {
        w: shape
        for w, shape in weights.items()
        if not any(matches(rule, w, layers[w]) for rule in exclude)
    }
    chosen = {
        w: current[w] if p is None else patterns.get(p)
        for w, p in choose("pattern", pattern, weights, None, layers).items()
    }
    fixed = {w: p.sparsity for w, p in chosen.items() if hasattr(p, "sparsity")}
    if sparsity is not None:
        sparsity = check_sparsity(sparsity, "the model")
        if fixed and not is_rules(pattern):
            # One pattern for all and a sparsity: the pattern refuses another one.
            fixed = dict.fromkeys(fixed, sparsity)
    elif not isinstance(allocation, Mapping) and set(fixed) != set(weights):
        raise ValueError(
            "`sparsity` must be a number in [0, 1): the share of zeros of the masked "
            "weights. Received: sparsity=None"
        )
    by_rule = isinstance(allocation, Mapping)
    free = {w: s for w, s in weights.items() if w not in fixed or by_rule}
    units = None
    if isinstance(allocation, str) and allocation == "square_root":
        units = _numbers_of_units(model, free, layers, chosen)
    shares = allocate(allocation, free, sparsity, layers, units)
    shares = {**fixed, **{w: s for w, s in shares.items() if s is not None}}
    plan: Plan = {}
    for weight, share in shares.items():
        attribute = weight.rsplit("/", 1)[1]
        sparsities, patterns_of = plan.setdefault(layers[weight], ({}, {}))
        sparsities[attribute], patterns_of[attribute] = share, chosen[weight]
    return plan


def _find_weights(
    model, include_embeddings
) -> tuple[dict[str, tuple], dict[str, str], dict[str, Any]]:
    """Return {weight: shape}, {weight: layer}, {weight: pattern}, by path.

    The pattern is that which a weight has, or the default of its layer. Layers that are
    masked already may be masked anew.
    """
    embeddings = False
    weights, layers, current = {}, {}, {}
    for path, layer in tree.walk(model):
        twin = _twin(layer)
        if twin is None or not layer.built:
            continue
        embeddings |= twin.only_if_asked
        if twin.only_if_asked and not include_embeddings:
            continue
        holder = getattr(layer, "cell", layer)
        for name in getattr(twin, "cell_class", twin).masked_attributes:
            weight = f"{path}/{name}"
            weights[weight] = tuple(latent_of(holder, name).shape)
            layers[weight] = path
            current[weight] = twin.default_pattern
        for masked in tree.masked_weights(layer) if tree.is_twin(layer) else ():
            current[f"{path}/{masked.attribute}"] = masked.pattern
    if include_embeddings and not embeddings:
        raise ValueError(
            "The model has no embedding that can be masked: no built Embedding nor "
            "ReversibleEmbedding of Keras. Leave `include_embeddings` out. "
            "Received: include_embeddings=True"
        )
    return weights, layers, current


def _twin(layer):
    """Return the class of a layer's masked twin, its own if it is one."""
    return type(layer) if tree.is_twin(layer) else tree.twin_of(layer)


def _numbers_of_units(model, shapes, layers, chosen):
    """Return how many units each weight has under the pattern chosen for it.

    Raises:
        ValueError: If a pattern does not divide its weight.
    """
    at = dict(tree.walk(model))
    found = {}
    for weight, shape in shapes.items():
        layer, name = at[layers[weight]], weight.rsplit("/", 1)[1]
        holder, twin = getattr(layer, "cell", layer), _twin(layer)
        twin = getattr(twin, "cell_class", twin)
        with named_in_errors(holder, name, shape):
            _, units = twin.matrix_and_units(holder, shape, chosen[weight])
        found[weight] = math.prod(units)
    return found


def _check_excluded(exclude, layers):
    for rule in exclude:
        hit = [w for w in layers if matches(rule, w, layers[w])]
        check_rules("exclude", rule, hit, layers)
