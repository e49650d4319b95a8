"""Sep-CMA-ES: covariance matrix adaptation with a diagonal matrix."""

import dataclasses
import math

from keras import ops

from keras_es.ops.pgpe import global_norm


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """The constants of CMA-ES; numbers in brackets are the tutorial's equations.

    Attributes:
        mu_eff: Variance effective selection mass (8).
        c_sigma: Decay of the path of the step size (55).
        d_sigma: Damping of the step size (55).
        c_c: Decay of the path of the covariance (56).
        c_1: Learning rate of the rank-one update (57).
        c_mu: Learning rate of the rank-mu update (58).
        chi: Expected norm of a standard normal vector.
        dimension: d.
    """

    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float
    dimension: int


def coefficients(population_size, dimension, rate_scale=None, populations=1):
    """Return the default `Coefficients`.

    Args:
        population_size: n, members that are ranked together.
        dimension: d.
        rate_scale: Factor of c_1 and c_mu of the full matrix; None for (d + 2)/3, as
            d variances are learnt from so much fewer members.
        populations: Populations whose updates are averaged.

    Example:

    >>> round(coefficients(10, 20).mu_eff, 3)
    3.167

    References:
        Hansen 2016, The CMA evolution strategy: a tutorial, arXiv 1604.00772.
        Ros, Hansen 2008, A simple modification in CMA-ES achieving linear time and
        space complexity: the factor (d + 2)/3.
    """
    d = dimension
    weights = _raw_weights(population_size)
    mu_eff = populations * sum(weights) ** 2 / sum(w * w for w in weights)
    scale = (d + 2.0) / 3.0 if rate_scale is None else rate_scale
    c_sigma = (mu_eff + 2.0) / (d + mu_eff + 5.0)
    excess = math.sqrt(max(0.0, (mu_eff - 1.0) / (d + 1.0)))
    c_1 = min(1.0, scale * 2.0 / ((d + 1.3) ** 2 + mu_eff))
    c_mu = 2.0 * (mu_eff - 2.0 + 1.0 / mu_eff) / ((d + 2.0) ** 2 + mu_eff)
    return Coefficients(
        mu_eff=mu_eff,
        c_sigma=c_sigma,
        d_sigma=1.0 + 2.0 * max(0.0, excess - 1.0) + c_sigma,
        c_c=(4.0 + mu_eff / d) / (d + 4.0 + 2.0 * mu_eff / d),
        c_1=c_1,
        c_mu=min(1.0 - c_1, scale * c_mu),
        chi=math.sqrt(d) * (1.0 - 1.0 / (4.0 * d) + 1.0 / (21.0 * d * d)),
        dimension=d,
    )


def _raw_weights(population_size):
    """Return ln((n + 1)/2) - ln k of the better half (48)."""
    half = math.log((population_size + 1) / 2.0)
    return [half - math.log(k) for k in range(1, population_size // 2 + 1)]


@dataclasses.dataclass
class State:
    """The search distribution N(mean, sigma**2 diag(variances)) and its paths.

    Attributes:
        means: List of tensors.
        sigma: Scalar.
        variances: List of tensors C.
        sigma_paths: List of tensors p_sigma.
        covariance_paths: List of tensors p_c.
    """

    means: list
    sigma: object
    variances: list
    sigma_paths: list
    covariance_paths: list


def update(state, weighted_noise, weighted_square, generation, coefficients):
    """Return the next `State`.

    With w_k the weights of the better half, which sum to 1, and z_k the noise,

        y = sqrt(C) sum_k w_k z_k,    mean <- mean + sigma y,
        p_sigma <- (1 - c_s) p_sigma + sqrt(c_s (2 - c_s) mu_eff) sum_k w_k z_k,
        sigma <- sigma exp(c_s/d_s (|p_sigma|/chi - 1)),
        p_c <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu_eff) y,
        C <- (1 - c_1 - c_mu + c_1 (1 - h) c_c (2 - c_c)) C
             + c_1 p_c**2 + c_mu C sum_k w_k z_k**2,

    h = 1 unless p_sigma is long.

    Args:
        state: `State`.
        weighted_noise: sum_k w_k z_k, list of tensors.
        weighted_square: sum_k w_k (z_k**2 - 1), list of tensors.
        generation: g = 0, 1, ..., scalar.
        coefficients: `Coefficients`.
    """
    c = coefficients
    steps = [ops.sqrt(v) * s for v, s in zip(state.variances, weighted_noise)]
    means = [m + ops.cast(state.sigma * y, m.dtype) for m, y in zip(state.means, steps)]
    gain = math.sqrt(c.c_sigma * (2.0 - c.c_sigma) * c.mu_eff)
    sigma_paths = [
        (1.0 - c.c_sigma) * p + gain * s
        for p, s in zip(state.sigma_paths, weighted_noise)
    ]
    length = global_norm(sigma_paths)
    sigma = state.sigma * ops.exp(c.c_sigma / c.d_sigma * (length / c.chi - 1.0))
    h = _path_is_short(length, generation, c)
    gain = h * math.sqrt(c.c_c * (2.0 - c.c_c) * c.mu_eff)
    covariance_paths = [
        (1.0 - c.c_c) * p + gain * y for p, y in zip(state.covariance_paths, steps)
    ]
    keep = 1.0 - c.c_1 - c.c_mu + c.c_1 * (1.0 - h) * c.c_c * (2.0 - c.c_c)
    variances = [
        keep * v + c.c_1 * ops.square(p) + c.c_mu * v * (s + 1.0)
        for v, p, s in zip(state.variances, covariance_paths, weighted_square)
    ]
    return State(means, sigma, variances, sigma_paths, covariance_paths)


def _path_is_short(length, generation, c):
    steps = 2.0 * (ops.cast(generation, "float32") + 1.0)
    unbiased = length / ops.sqrt(1.0 - ops.power(1.0 - c.c_sigma, steps))
    limit = (1.4 + 2.0 / (c.dimension + 1.0)) * c.chi
    return ops.cast(unbiased < limit, "float32")
