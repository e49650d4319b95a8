"""From a Keras model to a masked one and back."""

import keras
import numpy as np
import tensorflow as tf

from keras_es import _compat, patterns
from keras_es.conversion import allocation
from keras_es.conversion.clone import clone
from keras_es.layers import tree
from keras_es.layers.masked import check_sparsity
from keras_es.layers.masked_weight import refresh_mask
from keras_es.training.derived import (
    ESDerived,
    become_es,
    become_plain,
    es_class,
)
from keras_es.training.model import ESMixin, ESModel, ESSequential

INITIAL_MASKS = ("random", "magnitude")


def sparsify(
    model,
    sparsity=None,
    *,
    pattern=None,
    allocation="uniform",
    exclude=(),
    initial_mask="random",
    seed=0,
):
    """Return a copy of a model in which layers are swapped for their masked twins.

    Layers at any depth are reached (in MultiHeadAttention, Bidirectional,
    TimeDistributed, composites of your own). Weights, trained or not, are carried
    over. Layers without a masked twin stay as they are; `sparsity_report` lists them.
    The model itself is not changed.

    Args:
        model: Built Sequential, functional or nested `keras.Model`, or a subclassed
            one whose class derives from `keras_es.ESMixin`.
        sparsity: Share of zeros in [0, 1) of the masked weights. May be left out if
            `allocation` is a dict (layers it does not name then stay dense) or every
            pattern is `NByM`.
        pattern: A pattern for all, or a dict from layer path, weight path or regular
            expression to one. Default `Unstructured()`.
        allocation: "uniform" (each weight the same sparsity), "erk" (larger weights
            sparser), or a dict from layer path, weight path or regular expression
            to sparsity.
        exclude: Layer paths or regular expressions of layers that stay dense.
        initial_mask: "random", or "magnitude": keep the largest |w| of each unit, for
            a model that is trained already.
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
    _check_model(model, initial_mask, exclude)
    copy = clone(model)
    plan = _plan(copy, sparsity, pattern, allocation, exclude)
    for index, (path, layer) in enumerate(list(tree.walk(copy))):
        if path in plan:
            sparsities, chosen = plan[path]
            tree.swap_in(layer, sparsities, chosen, seed + 104729 * index)
    if initial_mask == "magnitude":
        for masked in tree.masked_weights(copy):
            if masked.kernel_mask is not None:  # Block-sparse layers stay as they are.
                _score_by_magnitude(masked)
    return _with_train_step(copy)


def es_model(model):
    """Return the same model with the class whose `fit` can evolve its weights.

    No layer is masked or copied: both models share their layers and weights.

    Args:
        model: Sequential or functional Keras model, or a subclass of `ESMixin`.

    Returns:
        An `ESSequential` or `ESModel`, not compiled. A functional model of a class of
        its own (a KerasHub task, say) is given a subclass of that class in place, and
        returned itself.

    Raises:
        ValueError: If the model is of another class, or its class has a `train_step`
            of its own.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> type(es_model(model)).__name__
    'ESSequential'
    """
    _check_model(model, "random", [])
    return _with_train_step(model)


def strip_masks(model):
    """Return the plain Keras model: zeros baked in, no masks, no keras_es.

    Every output equals that of `model`. The result is a `keras.Sequential` or
    functional `keras.Model` (a subclassed model keeps its class) and can be saved,
    exported, quantized or fine-tuned like any other. Block-sparse layers become dense
    ones of their full size; to keep them as they are, export the model itself.

    Args:
        model: A model with masked layers, built.

    Returns:
        The plain model, not compiled.

    Raises:
        ValueError: If the model is not built, or a layer's class is derived from a
            masked one, so that no plain class does the same.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> type(strip_masks(sparsify(model, sparsity=0.9)).layers[0]).__name__
    'Dense'
    """
    copy = clone(model)
    for path, layer in list(tree.walk(copy)):
        if tree.has_masks(layer):
            tree.swap_out(layer, path)
    if type(copy) is ESSequential:
        return _rebuild(copy, keras.Sequential)
    if type(copy) is ESModel:
        return _rebuild(copy, keras.Model)
    if isinstance(copy, ESDerived):
        become_plain(copy)
    return copy


def _check_model(model, initial_mask, exclude):
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model; a single layer has a masked twin in "
            f"keras_es.layers. Received: model={model!r}"
        )
    graph = isinstance(model, keras.Sequential) or _compat.is_functional(model)
    if not graph and not isinstance(model, ESMixin):
        raise ValueError(
            "A subclassed model must derive from keras_es.ESMixin to be trained with "
            f"masks: class {type(model).__name__}(keras_es.ESMixin, keras.Model). "
            f"Received: model of class {type(model).__name__}"
        )
    if not isinstance(model, ESMixin) and not _is_plain(model):
        es_class(type(model))  # refuses what cannot be trained with masks
    if initial_mask not in INITIAL_MASKS:
        raise ValueError(
            f"`initial_mask` must be one of {INITIAL_MASKS}. "
            f"Received: initial_mask={initial_mask!r}"
        )
    if isinstance(exclude, str):
        raise ValueError(
            "`exclude` must be a list of layer paths or regular expressions. "
            f"Received: exclude={exclude!r}"
        )


def _weights_of(path, layer):
    """Yield (weight path, attribute, shape) of what the twin of a layer masks."""
    twin = tree.twin_of(layer)
    holder = getattr(layer, "cell", layer)
    names = getattr(twin, "cell_class", twin).masked_attributes
    for name in names:
        found = vars(holder).get(name)
        latent = vars(holder).get("_" + name) if found is None else found
        yield f"{path}/{name}", name, tuple(latent.shape)


def _plan(model, sparsity, pattern, how, exclude):
    """Return {layer path: (sparsities, patterns)} of the layers to swap."""
    weights, layers = {}, {}
    for path, layer in tree.walk(model):
        if tree.twin_of(layer) is None or not layer.built:
            continue
        for weight, _, shape in _weights_of(path, layer):
            weights[weight], layers[weight] = shape, path
    _check_excluded(exclude, layers)
    weights = {
        w: shape
        for w, shape in weights.items()
        if not any(allocation.matches(rule, w, layers[w]) for rule in exclude)
    }
    chosen = allocation.choose("pattern", pattern, weights, None, layers)
    chosen = {w: patterns.get(p) for w, p in chosen.items()}
    fixed = {w: p.sparsity for w, p in chosen.items() if hasattr(p, "sparsity")}
    if sparsity is not None:
        sparsity = check_sparsity(sparsity, "the model")
        if fixed and not isinstance(pattern, dict):
            # One pattern for all and a sparsity: the pattern refuses another one.
            fixed = dict.fromkeys(fixed, sparsity)
    elif not isinstance(how, dict) and set(fixed) != set(weights):
        raise ValueError(
            "`sparsity` must be a number in [0, 1): the share of zeros of the masked "
            "weights. Received: sparsity=None"
        )
    free = {w: s for w, s in weights.items() if w not in fixed or isinstance(how, dict)}
    shares = allocation.allocate(how, free, sparsity, layers)
    shares = {**fixed, **{w: s for w, s in shares.items() if s is not None}}
    plan = {}
    for weight, share in shares.items():
        attribute = weight.rsplit("/", 1)[1]
        sparsities, patterns_of = plan.setdefault(layers[weight], ({}, {}))
        sparsities[attribute], patterns_of[attribute] = share, chosen[weight]
    return plan


def _check_excluded(exclude, layers):
    for rule in exclude:
        allocation._check_rule(
            "exclude",
            rule,
            [w for w in layers if allocation.matches(rule, w, layers[w])],
            layers,
        )


def _score_by_magnitude(masked):
    """Set scores to normal quantiles of the rank of |w| summed over each unit.

    Quantiles, so that the scores have the scale of random ones and sigma its meaning.
    """
    size = masked.reduce(tf.abs(masked.kernel.value)).numpy().astype("float64")
    ranks = np.argsort(np.argsort(size.ravel(), kind="stable"), kind="stable")
    share = (ranks + 0.5) / size.size
    scores = tf.math.ndtri(tf.constant(share, tf.float64))
    masked.mask_scores.assign(
        tf.reshape(tf.cast(scores, tf.float32), masked.mask_scores.shape)
    )
    refresh_mask(masked)


def _with_train_step(model):
    """Give a plain model the class that trains masks."""
    if isinstance(model, ESMixin):
        return model
    if not _is_plain(model):
        become_es(model)
        return model
    if isinstance(model, keras.Sequential):
        return _rebuild(model, ESSequential)
    return _rebuild(model, ESModel)


def _is_plain(model):
    """Tell whether a model's class is Keras's own, with nothing of a user's in it."""
    return type(model) is keras.Sequential or _compat.is_plain_functional(model)


def _rebuild(model, cls):
    """Make a model of another class from the same layers."""
    if issubclass(cls, keras.Sequential):
        rebuilt = cls(name=model.name)
        if model.inputs:
            first = model.inputs[0]
            rebuilt.add(keras.Input(batch_shape=first.shape, dtype=first.dtype))
        for layer in model.layers:
            rebuilt.add(layer)
        return rebuilt
    return cls(inputs=model.input, outputs=model.output, name=model.name)
