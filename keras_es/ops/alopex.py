"""Alopex: correlation of one change of all weights with the change of the loss."""

from keras import ops


def temperature_update(temperature, change, momentum):
    """T <- momentum T + (1 - momentum) |dE|; the first |dE| where T is 0.

    All |dw| of a weight are equal, so the mean of |dw dE| is that of |dE| times them,
    and they cancel in the probability.

    Args:
        temperature: T, scalar.
        change: dE, scalar.
        momentum: In [0, 1).
    """
    size = ops.abs(change)
    mean = momentum * temperature + (1.0 - momentum) * size
    return ops.where(temperature > 0, mean, size)


def next_signs(signs, change, temperature, uniform):
    """Draw the signs of the next step: P(-) = 1/(1 + exp(-s dE/T)).

    If the loss rose (dE > 0) while a weight rose (s = 1), it most likely falls next.

    Args:
        signs: Tensor s of the last step, +1 or -1; 0 before the first.
        change: dE, scalar.
        temperature: T, scalar.
        uniform: Uniform noise in [0, 1) of the shape of `signs`.

    Returns:
        float32 tensor of +1 and -1.

    References:
        Unnikrishnan, Venugopal 1994, Alopex: a correlation-based learning algorithm
        for feedforward and recurrent neural networks, equations 1 and 2.
    """
    ratio = change / ops.maximum(temperature, 1e-30)
    falls = uniform < ops.sigmoid(signs * ratio)
    return ops.cast(ops.where(falls, -1.0, 1.0), "float32")
