"""Search gradients and the updates of search distributions.

All are estimates of the gradient of the expected fitness (a loss, lower is better)
with respect to the parameters of the distribution; to descend, subtract them.
"""

import math

from keras import ops


def gaussian(weighted_noise, population_size, sigma):
    """Search gradient of a Gaussian: -(1/n) sum_k u_k eps_k / sigma.

    For x = mu + sigma*eps, grad_mu E f = E[f(x) eps]/sigma; utilities u stand for -f.

    Args:
        weighted_noise: sum_k u_k eps_k, any shape.
        population_size: n.
        sigma: Scalar or tensor of that shape, >= 0.

    Returns:
        Tensor of the shape of the noise; 0 where sigma is 0, for members that are
        equal say nothing.

    References:
        Salimans et al. 2017, arXiv 1703.03864, section 2.
    """
    # A schedule may end at 0, and 0/0 would make the scores NaN for good.
    safe = ops.cast(ops.where(sigma > 0, sigma, 1.0), weighted_noise.dtype)
    gradient = -weighted_noise / (population_size * safe)
    return ops.where(sigma > 0, gradient, ops.zeros_like(gradient))


def expected_noise(gradient, population_size, sigma):
    """What sum_k u_k eps_k is on average where the gradient is known: -n sigma g.

    The inverse of `gaussian`: for a strategy whose steps are written with the sum.

    Args:
        gradient: g of the fitness in units of utilities, any shape.
        population_size: n.
        sigma: Scalar or tensor of that shape, >= 0.
    """
    return -population_size * sigma * gradient


def utility_slope(fitness, utilities, valid):
    """How much utility is lost with a unit of fitness: the slope of u over -f.

    - sum_k (f_k - mean f) u_k / sum_k (f_k - mean f)**2 over valid members; 1 for
    u = -f. What is known of f itself is brought to the scale of utilities by it.

    Args:
        fitness: [n] f.
        utilities: [n] u.
        valid: [n] booleans.

    Returns:
        Scalar; 0 where all are equal.
    """
    weight = ops.cast(valid, "float32")
    safe = ops.where(valid, fitness, 0.0)
    mean = ops.sum(weight * safe) / ops.maximum(ops.sum(weight), 1.0)
    centred = weight * (safe - mean)
    variance = ops.sum(ops.square(centred))
    covariance = ops.sum(centred * utilities)
    slope = -covariance / ops.where(variance > 0, variance, 1.0)
    return ops.where(variance > 0, slope, 0.0)


def antithetic_bernoulli(first, second, probabilities):
    """Score of an antithetic pair of Bernoulli samples, for one difference of f.

    For m+ = [u < p], m- = [1 - u < p] and theta the logit of p,

        grad_theta E f = E[(f(m+) - f(m-))/2 * (m+ - m-) * max(p, 1 - p)],

    exactly, for each coordinate: what both samples have in common cancels.

    Args:
        first: m+, zeros and ones as floats.
        second: m-, of the same shape.
        probabilities: p of the same shape.

    Returns:
        (m+ - m-) * max(p, 1 - p) / 2, to be multiplied with f(m+) - f(m-).

    References:
        Dong, Mnih, Tucker 2020, DisARM, arXiv 2006.10680.
    """
    return 0.5 * (first - second) * ops.maximum(probabilities, 1.0 - probabilities)


def guided_natural(guidance, correction, probabilities, budget):
    """Natural gradient of Bernoulli logits: s + w * correction.

    The Fisher information of a logit is p (1 - p). With any s that does not depend on
    the samples, grad_theta E f = s p (1 - p) + correction, where `correction` is the
    score-function estimate of what s leaves unexplained. Divided by p (1 - p):

        s + correction / (p (1 - p))                          unbiased,
        s + correction * N / (N p (1 - p) + sum p (1 - p))     shrunk.

    The first has a variance that grows with the number of undecided units and with
    1/p; the second weighs it by what N evaluations can tell. N -> inf gives the first.

    Args:
        guidance: s, a guess of dL/dm.
        correction: Score-function estimate of the same shape.
        probabilities: p of the same shape.
        budget: N, evaluations that are averaged, or None for no shrinking.

    Returns:
        Tensor of the same shape.

    References:
        Amari 1998, Natural gradient works efficiently in learning.
    """
    fisher = probabilities * (1.0 - probabilities)
    if budget is None:
        return guidance + correction / ops.maximum(fisher, 1e-12)
    weight = budget / ops.maximum(budget * fisher + ops.sum(fisher), 1e-12)
    return guidance + weight * correction


def snes_std_learning_rate(dimension):
    """eta_sigma = (3 + ln d) / (5 sqrt d).

    Example:

    >>> round(snes_std_learning_rate(100), 4)
    0.1521
    """
    return (3.0 + math.log(dimension)) / (5.0 * math.sqrt(dimension))


def snes_mean_learning_rate(dimension):
    """eta_mu = min(1, 4 / sqrt d).

    The paper has 1. With n members in d >> n dimensions nearly all of a step is
    random; eta_mu * sqrt d is its length in standard deviations, kept to 4 here, that
    of the paper at d = 16.

    Example:

    >>> snes_mean_learning_rate(400)
    0.2
    """
    return min(1.0, 4.0 / math.sqrt(dimension))


def snes_mean_update(mean, std, weighted_noise, learning_rate):
    """mu + eta_mu * std * sum_k u_k z_k.

    Args:
        mean: Tensor mu.
        std: Tensor sigma of the same shape.
        weighted_noise: sum_k u_k z_k of the same shape.
        learning_rate: eta_mu, 1 in the original.

    Returns:
        The new mean.

    References:
        Schaul, Glasmachers, Schmidhuber 2011, algorithm 1.
    """
    return mean + ops.cast(learning_rate * std * weighted_noise, mean.dtype)


def snes_std_update(std, weighted_square, learning_rate):
    """sigma * exp(eta_sigma/2 * sum_k u_k (z_k**2 - 1)).

    Args:
        std: Tensor sigma.
        weighted_square: sum_k u_k (z_k**2 - 1) of the same shape.
        learning_rate: eta_sigma, `snes_std_learning_rate(d)` in the original.

    Returns:
        The new standard deviations.
    """
    return std * ops.exp(0.5 * learning_rate * weighted_square)


def calibrate_shift(scores, temperature, starts, count, iterations=2):
    """Newton steps on tau so that sum sigmoid((s - tau)/T) comes to `count`.

    tau <- tau + (sum p - count) / (sum p (1 - p) / T), from the start whose sum is
    nearest to `count`; each step is kept to 4T.

    Args:
        scores: Tensor s.
        temperature: T > 0.
        starts: Sequence of scalars tau to choose the start from.
        count: Expected number of ones, 0 < count < d.
        iterations: Number of Newton steps.

    Returns:
        Scalar tau.
    """
    # Which start is nearer a sample can tell.
    stride = max(1, math.prod(scores.shape) // 4096)
    sample = ops.reshape(scores, (-1,))[::stride]
    share = count / math.prod(scores.shape)

    def excess(shift):
        return ops.mean(ops.sigmoid((sample - shift) / temperature)) - share

    if len(starts) == 1:
        shift = starts[0]
    else:
        starts = ops.stack(list(starts))
        gaps = [ops.abs(excess(starts[i])) for i in range(starts.shape[0])]
        shift = ops.take(starts, ops.argmin(ops.stack(gaps)))
    for _ in range(iterations):
        p = ops.sigmoid((scores - shift) / temperature)
        slope = ops.sum(p * (1.0 - p)) / temperature
        step = (ops.sum(p) - count) / ops.maximum(slope, 1e-12)
        shift = shift + ops.clip(step, -4.0 * temperature, 4.0 * temperature)
    return shift
