"""Whether two networks lie in one valley: the loss along the line between them."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_es import _arguments as kinds
from keras_es.lottery.evaluation import Evaluator


class Connectivity(NamedTuple):
    """What `connectivity` returns.

    Attributes:
        positions: [points] alpha, from 0, the first model, to 1, the second.
        losses: [points] losses.
        errors: [points] shares of examples that are wrong, or None without accuracy.
        barrier: Largest loss above the line between the two ends, at least 0.
        error_barrier: The same of errors, or None.
    """

    positions: np.ndarray
    losses: np.ndarray
    errors: np.ndarray | None
    barrier: float
    error_barrier: float | None


def connectivity(
    model_a: keras.Model,
    model_b: keras.Model,
    data: Any,
    points: int = 21,
    *,
    loss: Any = None,
    metrics: Any = ("accuracy",),
    batch_size: int = 1024,
) -> Connectivity:
    r"""Return loss and error along the line between two models of one architecture.

    With effective weights w (masked-out ones are 0), for alpha from 0 to 1,

        L(alpha) = loss of (1 - alpha) w_a + alpha w_b,
        barrier = max_alpha L(alpha) - (1 - alpha) L(0) - alpha L(1).

    Moving statistics of `BatchNormalization` are computed again from the data at each
    point, the ends too, for those of a mixture are not the mixture of theirs. Neither
    model is changed.

    Args:
        model_a: Built model, masked or not.
        model_b: Another with the same weights' shapes.
        data: Tuple (x, y) of arrays, or an `ImageDataset` (its training examples).
        points: Number of points, at least 3.
        loss: See `keras.Model.compile`; None for that which `model_a` was compiled
            with.
        metrics: See `keras.Model.compile`; errors are 1 - "accuracy".
        batch_size: Examples evaluated at once.

    Raises:
        ValueError: If the models' weights differ in shape, or an argument is out of
            range.

    Example:

    >>> def model(weight):
    ...     one = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    ...     one.set_weights([np.array([[weight]]), np.zeros(1)])
    ...     return one
    >>> data = np.ones((2, 1), "float32"), np.ones((2, 1), "float32")
    >>> connectivity(model(0.0), model(2.0), data, 3, loss="mse", metrics=()).losses
    array([1., 0., 1.])

    References:
        Frankle, Dziugaite, Roy, Carbin 2020, Linear mode connectivity and the lottery
        ticket hypothesis, arXiv 1912.05671; Entezari et al. 2022, arXiv 2110.06296.
    """
    points = kinds.integer(3)("points", points)
    batch_size = kinds.integer(1)("batch_size", batch_size)
    first = Evaluator(model_a, data, loss, metrics, batch_size)
    second = Evaluator(model_b, data, loss or "mse", (), batch_size)
    ends = first.model.get_weights(), second.model.get_weights()
    shapes = [[w.shape for w in end] for end in ends]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`model_a` and `model_b` must have weights of the same shapes. "
            f"Received: {shapes[0]} and {shapes[1]}"
        )
    positions = np.linspace(0.0, 1.0, points)
    logs = [
        first.evaluate([(1.0 - t) * a + t * b for a, b in zip(*ends)])
        for t in positions
    ]
    losses = np.array([float(row["loss"]) for row in logs])
    errors = error_barrier = None
    if "accuracy" in logs[0]:
        errors = 1.0 - np.array([float(row["accuracy"]) for row in logs])
        error_barrier = _barrier(positions, errors)
    return Connectivity(
        positions, losses, errors, _barrier(positions, losses), error_barrier
    )


def _barrier(positions, values):
    line = (1.0 - positions) * values[0] + positions * values[-1]
    return float(np.max(values - line))
