"""How flat a minimum is: the loss under noise, and the Hessian's largest eigenvalue."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_es import _arguments as kinds
from keras_es.lottery.evaluation import Evaluator, local, mean_loss
from keras_es.lottery.masking import named_weights, plain_variables


class Flatness(NamedTuple):
    """What `flatness` returns.

    Attributes:
        scales: Scales of the noise, relative to the norm of each weight.
        losses: Mean loss at each scale.
        stds: Std of the loss over draws at each scale.
        eigenvalue: Largest eigenvalue of the Hessian.
    """

    scales: np.ndarray
    losses: np.ndarray
    stds: np.ndarray
    eigenvalue: float


def flatness(
    model: keras.Model,
    data: Any,
    scales: Any = (0.0, 0.05, 0.1, 0.2, 0.4),
    draws: int = 10,
    *,
    iterations: int = 20,
    seed: int = 0,
    loss: Any = None,
    batch_size: int = 1024,
) -> Flatness:
    r"""Return the loss around a minimum, and its largest curvature.

    Each trainable weight w_l (the active entries of a masked one, d_l of them) becomes

        w_l + s |w_l| / sqrt(d_l) z,    z standard normal,

    so that noise of scale s has s times the norm of the weight. The curvature is the
    largest eigenvalue of the Hessian of the mean loss by those entries, by the Lanczos
    method with full orthogonalization: each iteration takes one product of the Hessian
    and a vector.

    Args:
        model: Built model, masked or not.
        data: Tuple (x, y) of arrays, or an `ImageDataset` (its training examples).
        scales: List of numbers s of at least 0.
        draws: Draws of the noise at each scale, at least 1.
        iterations: Iterations of the Lanczos method, at least 1; as many as there are
            weights are exact.
        seed: Integer seed of noise and of the first vector.
        loss: See `keras.Model.compile`; None for that of the model.
        batch_size: Examples at once.

    Raises:
        ValueError: If an argument is out of range, or there is no loss.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> data = np.ones((2, 1), "float32"), np.ones((2, 1), "float32")
    >>> found = flatness(model, data, scales=(0.0,), draws=1, loss="mse")
    >>> round(found.eigenvalue, 4)
    4.0

    References:
        Lanczos 1950; Ghorbani, Krishnan, Xiao 2019, arXiv 1901.10159.
    """
    number = kinds.number(lambda x: x >= 0, "a list of numbers of at least 0")
    if not isinstance(scales, list | tuple | np.ndarray) or not len(scales):
        raise ValueError(
            "`scales` must be a list of numbers of at least 0. "
            f"Received: scales={scales!r}"
        )
    scales = np.array([number("scales", s) for s in scales])
    draws = kinds.integer(1)("draws", draws)
    iterations = kinds.integer(1)("iterations", iterations)
    seed = kinds.seed("seed", seed)
    batch_size = kinds.integer(1)("batch_size", batch_size)
    evaluator = Evaluator(model, data, loss, (), batch_size)
    values = evaluator.model.get_weights()
    active = _active(evaluator.model, values, model)
    if all(mask is None or not mask.any() for mask in active):
        raise ValueError(
            "`model` must have weights that can be trained, along which the loss is "
            f"looked at. Received: model={model.name!r}, in which all are frozen"
        )
    losses = []
    for s in scales:
        rng = np.random.default_rng(abs(seed))
        count = draws if s else 1  # Without noise all draws are one.
        row = [
            float(evaluator.evaluate(_noisy(values, active, s, rng))["loss"])
            for _ in range(count)
        ]
        losses.append(row)
    evaluator.model.set_weights(values)
    eigenvalue = _largest_eigenvalue(evaluator, active, iterations, seed)
    return Flatness(
        scales,
        np.array([np.mean(row) for row in losses]),
        np.array([np.std(row) for row in losses]),
        eigenvalue,
    )


def _active(plain, values, model):
    """Return, for each weight, where it may move: None if nowhere, for statistics."""
    masks = {id(m.kernel): m for m in named_weights(model).values()}
    trainable = {id(v) for v in plain.trainable_variables}
    found: list[Any] = []
    for variable, source, value in zip(plain.weights, plain_variables(model), values):
        if id(variable) not in trainable:
            found.append(None)
        elif id(source) in masks:
            mask = np.asarray(masks[id(source)].deployed_mask())
            found.append(mask.reshape(value.shape))
        else:
            found.append(np.ones(value.shape, bool))
    return found


def _noisy(values, active, scale, rng):
    noisy = []
    for value, mask in zip(values, active):
        if mask is None or not mask.any():
            noisy.append(value)
            continue
        z = rng.standard_normal(value.shape) * mask
        norm = np.linalg.norm(value[mask].astype("float64"))
        noisy.append(value + (scale * norm / np.sqrt(mask.sum()) * z))
    return noisy


def _largest_eigenvalue(evaluator, active, iterations, seed):
    """Return the largest eigenvalue by the Lanczos method."""
    model = evaluator.model
    places = {id(v): m for v, m in zip(model.weights, active)}
    masks = [places[id(v)] for v in model.trainable_variables]
    rng = np.random.default_rng([abs(seed), 1])
    size = sum(int(m.sum()) for m in masks)
    product = _HessianProduct(evaluator, masks)
    vector = rng.standard_normal(size)
    basis = [vector / np.linalg.norm(vector)]
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(min(iterations, size)):
        w = product(basis[-1])
        alphas.append(float(basis[-1] @ w))
        for _ in range(2):  # Twice: once leaves what rounding left.
            for v in basis:
                w -= (v @ w) * v
        beta = float(np.linalg.norm(w))
        if beta <= 1e-6 * max(map(abs, alphas)) or len(basis) == size:
            break
        betas.append(beta)
        basis.append(w / beta)
    count = len(alphas)
    matrix = np.diag(alphas) + sum(
        (np.diag(betas[: count - 1], k) for k in (1, -1)), np.zeros((count, count))
    )
    return float(np.linalg.eigvalsh(matrix)[-1])


class _HessianProduct:
    """Products of the Hessian of the mean loss and vectors of the active entries."""

    def __init__(self, evaluator, masks):
        self.evaluator, self.masks = evaluator, masks
        model = evaluator.model
        variables = [local(v) for v in model.trainable_variables]

        @tf.function(autograph=False, reduce_retracing=True)
        def product(batch, vectors):
            x, y, sample_weight = batch
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    loss = mean_loss(model, x, y, sample_weight)
                gradients = inner.gradient(
                    loss, variables, unconnected_gradients="zero"
                )
                dot = tf.add_n(
                    [tf.reduce_sum(g * v) for g, v in zip(gradients, vectors)]
                )
            return outer.gradient(dot, variables, unconnected_gradients="zero")

        self._product = product

    def __call__(self, vector):
        """Return the product, float64 of the same length."""
        parts, start = [], 0
        for mask in self.masks:
            part = np.zeros(mask.shape, "float32")
            count = int(mask.sum())
            part[mask] = vector[start : start + count]
            parts.append(part)
            start += count
        parts = [
            tf.cast(p, v.dtype)
            for p, v in zip(parts, self.evaluator.model.trainable_variables)
        ]
        total, examples = np.zeros(len(vector)), 0
        for batch in self.evaluator.batches:
            size = len(keras.tree.flatten(batch)[0])
            found = self._product((*batch, None)[:3], parts)
            flat = [np.asarray(g, "float64")[m] for g, m in zip(found, self.masks)]
            total += size * np.concatenate(flat)
            examples += size
        return total / examples
