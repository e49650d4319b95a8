"""Drawing the examples of a batch that say most, and weights that make up for it."""

from keras import ops

UNIFORM_SHARE = 0.2
"""Share of the probability that all examples have alike: no weight exceeds 1/0.2."""


def probabilities(sizes, uniform_share=UNIFORM_SHARE):
    """p_i = (1 - u) |s_i| / sum_j |s_j| + u / n.

    Where all sizes are 0 all examples are alike; a size that is not finite counts as 0.

    Args:
        sizes: [n] s, what each example contributed to a loss.
        uniform_share: u in (0, 1], which bounds the weights 1/(n p) by 1/u.

    Returns:
        [n] p, whose sum is 1.

    References:
        Katharopoulos, Fleuret 2018, Not all samples are created equal, arXiv
        1803.00942 (an example's gradient is about as large as its loss).
    """
    sizes = ops.where(ops.isfinite(sizes), ops.abs(sizes), 0.0)
    count = ops.cast(ops.shape(sizes)[0], "float32")
    total = ops.sum(sizes)
    share = ops.where(total > 0, sizes / ops.where(total > 0, total, 1.0), 1.0 / count)
    return (1.0 - uniform_share) * share + uniform_share / count


def systematic_sample(probability, points):
    """Draw indices i with probabilities p_i, as evenly as can be.

    Point (j + v)/k for j = 0 ... k - 1, v uniform in [0, 1), falls into the interval
    of length p_i of one i: each i is drawn k p_i times, rounded up or down, and k p_i
    times on average.

    Args:
        probability: [n] p, n > 0.
        points: [k] the points, in [0, 1).

    Returns:
        [k] int32 indices in [0, n).

    References:
        Kitagawa 1996, Monte Carlo filter and smoother for non-Gaussian nonlinear
        state space models (stratified and systematic resampling).
    """
    ends = ops.cumsum(probability)
    index = ops.searchsorted(ends, points, side="right")
    # The last end may be rounded to less than 1.
    return ops.minimum(ops.cast(index, "int32"), ops.shape(probability)[0] - 1)


def weights(probability, indices):
    """1/(n p_i) of the drawn: then a mean over them is that over all, on average.

        E[1/k sum_j l_(i_j) / (n p_(i_j))] = 1/n sum_i l_i.

    Args:
        probability: [n] p.
        indices: [k] what was drawn.

    Returns:
        [k] weights.
    """
    count = ops.cast(ops.shape(probability)[0], "float32")
    return 1.0 / (count * ops.take(probability, indices))
