"""Scores by which weights are kept, and which of them survive a pruning."""

import numpy as np
import tensorflow as tf

from keras_es.layers.masked_weight import apply_mask
from keras_es.lottery.evaluation import local, mean_loss
from keras_es.lottery.masking import named_weights
from keras_es.ops import noise
from keras_es.optimizers.evolution.strategy import EvolutionStrategy

SCORES = ("snr", "magnitude", "random", "final", "snip")
"""What `find` can keep weights by, besides a function of one's own."""


def check_snr(strategy):
    """Refuse a method that has no std for each weight.

    Raises:
        ValueError: If it has none.
    """
    pure = isinstance(strategy, EvolutionStrategy) and strategy.inner_optimizer is None
    if not (pure and strategy.separable):
        raise ValueError(
            'score="snr" is of strategies with a std for each weight: SNES, PGPE or '
            'SepCMAES with inner_optimizer=None. Give score="magnitude". '
            f"Received: strategy={type(strategy).__name__}"
        )


def snr(model):
    r"""Return |mean| / std of each weight under a model's search distribution.

    The std is that of a member: sigma_i of SNES and PGPE, sigma sqrt(C_ii) of SepCMAES.

    Args:
        model: Trained model with masks, whose strategy has a std for each weight.

    Returns:
        Dict from name of a masked weight to an array of its shape; 0 where it is masked
        out.
    """
    strategy, found = model.optimizer, {}
    check_snr(strategy)
    space = strategy.search.space
    stds = {id(w): s for w, s in zip(space.weights, strategy.scales())}
    for name, masked in named_weights(model).items():
        std = np.asarray(stds[id(masked.kernel)], "float64")
        value = np.asarray(masked.effective_value(), "float64").reshape(masked.shape)
        mask = np.asarray(masked.deployed_mask()).reshape(masked.shape)
        if std.shape != mask.shape:  # The active ones only, in their order.
            wide = np.ones(mask.shape)
            wide[mask] = std
            std = wide
        found[name] = np.abs(value) / std
    return found


def magnitude(model):
    """Return |w| of each effective weight of a model, by name."""
    return {
        name: np.abs(np.asarray(m.effective_value(), "float64")).reshape(m.shape)
        for name, m in named_weights(model).items()
    }


def random(shapes, seed, round_index):
    """Return uniform numbers for each weight, a function of (seed, round, its place).

    Not of its name, which Keras counts up where a layer was given none.
    """
    found = {}
    for place, (name, shape) in enumerate(shapes.items()):
        key = noise.stream_key(seed, f"lottery {place}")
        found[name] = np.random.Generator(
            np.random.Philox(key=[key, round_index])
        ).random(shape)
    return found


def snip(model, batches, count=16):
    """Return |w dL/dw|, what a small change of each weight does to the loss.

    Args:
        model: Compiled model with masks, at the values to judge by.
        batches: Iterable of batches.
        count: How many of them the gradient is the mean of.

    References:
        Lee, Ajanthan, Torr 2019, SNIP, arXiv 1810.02340.
    """
    weights = named_weights(model)
    kernels = [local(m.kernel) for m in weights.values()]

    @tf.function(autograph=False)
    def gradients(x, y, sample_weight):
        with tf.GradientTape() as tape:
            loss = mean_loss(model, x, y, sample_weight)
        return tape.gradient(loss, kernels)

    sums = [np.zeros(k.shape, "float64") for k in kernels]
    for batch in batches.take(count):
        x, y, sample_weight = (*batch, None)[:3]
        for total, g in zip(sums, gradients(x, y, sample_weight)):
            total += np.asarray(g)
    return {
        name: np.abs(g / count * np.asarray(apply_mask(m.kernel, m.kernel_mask)))
        for (name, m), g in zip(weights.items(), sums)
    }


def survivors(scores, masks, count, layerwise):
    """Return the masks of the weights that are kept, by one percentile of all.

    The weight with the largest score of each layer always stays, so that no layer ends
    up empty. Of equal scores the first ones stay: the number is exact.

    Args:
        scores: Dict from name to array; NaN counts as the lowest.
        masks: Dict from name to boolean array: what is left.
        count: Number of weights to keep, of all of them.
        layerwise: Whether each weight keeps the same share, and not the best of all.

    Returns:
        Dict from name to boolean array.

    Example:

    >>> scores = {"a": np.array([3.0, 1.0]), "b": np.array([2.0, 9.0])}
    >>> masks = {name: np.ones(2, bool) for name in scores}
    >>> survivors(scores, masks, 3, layerwise=False)["a"]
    array([ True, False])
    """
    names = list(masks)
    left = {name: int(masks[name].sum()) for name in names}
    count = min(max(count, len(names)), sum(left.values()))
    flat = {name: _ranked(scores[name], masks[name]) for name in names}
    if layerwise:
        counts = _shares(left, count)
    else:
        counts = _by_percentile(flat, left, count)
    kept = {}
    for name in names:
        order = np.argsort(-flat[name], kind="stable")[: counts[name]]
        mask = np.zeros(flat[name].size, bool)
        mask[order] = True
        kept[name] = mask.reshape(masks[name].shape)
    return kept


def _ranked(scores, mask):
    """Return flat scores that are finite where the mask is, and -inf elsewhere."""
    scores = np.asarray(scores, "float64")
    lowest = np.finfo("float64").min
    scores = np.nan_to_num(scores, nan=lowest, posinf=np.finfo("float64").max)
    return np.where(mask, np.maximum(scores, lowest), -np.inf).reshape(-1)


def _by_percentile(flat, left, count):
    """Return how many of each weight are among the best, at least one of each."""
    best = {name: int(np.argmax(values)) for name, values in flat.items()}
    joined = [values.copy() for values in flat.values()]
    for values, index in zip(joined, best.values()):
        values[index] = np.inf
    owner = np.repeat(np.arange(len(flat)), [v.size for v in joined])
    order = np.argsort(-np.concatenate(joined), kind="stable")[:count]
    counts = np.bincount(owner[order], minlength=len(flat))
    return dict(zip(flat, counts.tolist()))


def _shares(left, count):
    """Divide a number in proportion to what is left; the largest remainders go up."""
    total, names = sum(left.values()), list(left)
    exact = np.array([left[name] * count / total for name in names])
    counts = np.maximum(np.floor(exact), 1).astype(int)
    for index in np.argsort(-(exact - np.floor(exact)), kind="stable"):
        if counts.sum() < count:
            counts[index] += 1
    while counts.sum() > count:
        counts[np.argmax(counts)] -= 1
    return dict(zip(names, counts.tolist()))
