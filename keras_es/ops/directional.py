r"""Gradients from derivatives along random directions.

For a random v with E v v^T = I and the derivative c = g . v of a function along it,
c v is an unbiased estimate of the gradient g: E (g . v) v = E[v v^T] g = g. Its
variance, summed over the d coordinates, is E |c v|**2 - |g|**2, and with independent
v_i of variance 1 and fourth moment m

    E c**2 |v|**2 = sum_ijk g_i g_j E[v_i v_j v_k**2] = (d - 1 + m) |g|**2,

for only the terms with i = j are not 0, and of these k = i gives m, the others 1. So
it is (d - 1) |g|**2 for signs (m = 1), which nothing with E v v^T = I can be below, and
(d + 1) |g|**2 for normal v (m = 3). The mean of k directions has a k-th of it.

References:
    Baydin, Pearlmutter, Syme, Wood, Torr 2022, Gradients without backpropagation,
    arXiv 2202.08587; Belouze 2022, Optimization without backpropagation, arXiv
    2209.06302 (the variances).
"""

import tensorflow as tf

from keras_es.ops import philox

LAWS = {"rademacher": philox.packed_signs, "normal": philox.normals}
"""Laws of a direction's coordinates: functions (shape, position) of `ops.philox`."""


def drawn_together(law, shapes, positions):
    """Return directions of some weights.

    Args:
        law: Key of `LAWS`.
        shapes: List of static shapes.
        positions: What `philox.stream` returned for each, two tensors [shapes, draws].

    Returns:
        List of float32 tensors [draws, *shape].
    """
    if law == "rademacher":
        return philox.packed_signs_of(shapes, positions)
    each = [[word[i] for word in positions] for i in range(len(shapes))]
    return [LAWS[law](shape, position) for shape, position in zip(shapes, each)]


def weighted_directions(coefficients, directions):
    """Return sum_k c_k v_k.

    Args:
        coefficients: [k] c.
        directions: [k, *shape] v.

    Returns:
        Tensor of that shape.

    Example:

    >>> weighted_directions([2.0, 1.0], [[1.0, -1.0], [1.0, 1.0]]).numpy()
    array([ 3., -1.], dtype=float32)
    """
    return tf.tensordot(coefficients, directions, 1)


def known(derivatives):
    """Return which directions count, those whose derivatives are all finite.

    Args:
        derivatives: List of [k, ...] tensors.

    Returns:
        [k] booleans.

    Example:

    >>> known([tf.constant([1.0, float("nan")])]).numpy()
    array([ True, False])
    """
    finite = tf.constant(True)
    for derivative in derivatives:
        axes = list(range(1, derivative.shape.rank))
        finite &= tf.reduce_all(tf.math.is_finite(derivative), axis=axes)
    return finite


def central_difference(above, below, step):
    """Return (f(x + h v) - f(x - h v)) / 2h, which is f' v + O(h**2).

    Args:
        above: f(x + h v).
        below: f(x - h v).
        step: h > 0.

    Example:

    >>> float(central_difference(9.0, 1.0, 1.0))
    4.0
    """
    return (above - below) / (2.0 * step)
