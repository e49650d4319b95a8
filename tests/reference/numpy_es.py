"""Evolution strategies in NumPy, written from the papers and not from the package."""

import itertools

import numpy as np


def rank_average(fitness, table):
    """Give the k-th best the entry table[k]; a group of ties shares its mean."""
    fitness = np.asarray(fitness, "float64")
    order = np.argsort(fitness, kind="stable")
    utilities = np.empty(len(fitness))
    utilities[order] = table
    for value in np.unique(fitness):
        ties = fitness == value
        utilities[ties] = utilities[ties].mean()
    return utilities


def centered_rank(fitness):
    n = len(fitness)
    return rank_average(fitness, [0.5 - k / (n - 1) for k in range(n)])


def nes(fitness):
    n = len(fitness)
    raw = [max(0.0, np.log(n / 2 + 1) - np.log(k)) for k in range(1, n + 1)]
    return rank_average(fitness, np.array(raw) / sum(raw) - 1 / n)


def best_only(fitness):
    n = len(fitness)
    return rank_average(fitness, [1 - 1 / n] + [-1 / n] * (n - 1))


def finite(fitness):
    fitness = np.array(fitness, "float64")
    bad = np.isinf(fitness)
    fitness[bad] = fitness[~bad].max() if not bad.all() else 0.0
    return fitness


def raw(fitness):
    return finite(fitness).mean() - finite(fitness)


def standardize(fitness):
    fitness = finite(fitness)
    std = fitness.std()
    return (fitness.mean() - fitness) / (std if std > 0 else 1.0)


SHAPINGS = {
    "centered_rank": centered_rank,
    "nes": nes,
    "best_only": best_only,
    "raw": raw,
    "standardize": standardize,
}


def snes(mean, std, noise, fitness, eta_mean=1.0, eta_std=None):
    """One generation of SNES (Schaul et al. 2011, algorithm 1), noise is [n, d]."""
    d = noise.shape[1]
    if eta_std is None:
        eta_std = (3 + np.log(d)) / (5 * np.sqrt(d))
    utilities = nes(fitness)[:, None]
    new_mean = mean + eta_mean * std * np.sum(utilities * noise, axis=0)
    slope = np.sum(utilities * (noise**2 - 1), axis=0)
    return new_mean, std * np.exp(eta_std / 2 * slope)


def all_masks(d):
    """All 2**d masks, [2**d, d]."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=d)))


def bernoulli_gradient(losses, p):
    """Gradient of E f(m), m ~ Bernoulli(sigmoid(theta)), with respect to theta.

    Sums over all masks: sum_m f(m) P(m) (m - p).
    """
    masks = all_masks(len(p))
    probability = np.prod(np.where(masks == 1, p, 1 - p), axis=1)
    return np.sum((losses * probability)[:, None] * (masks - p), axis=0)


def open_es(noise, fitness, sigma):
    """Search gradient of Salimans et al. 2017 with centred ranks, noise is [n, d]."""
    n = len(fitness)
    return -centered_rank(fitness) @ noise / (n * sigma)


def clip_up(velocity, gradient, rate, momentum, max_speed):
    """Algorithm 2 of Toklu et al. 2020, for descent."""
    velocity = momentum * velocity - rate * gradient / np.linalg.norm(gradient)
    length = np.linalg.norm(velocity)
    return velocity * (max_speed / length if length > max_speed else 1.0)


def pgpe(mean, std, velocity, noise, fitness, rate, momentum, max_speed, eta_std):
    """One generation of PGPE with symmetric samples (2k, 2k + 1), and ClipUp."""
    utilities = centered_rank(fitness)
    plus, minus, z = utilities[0::2], utilities[1::2], noise[0::2]
    n = len(fitness)
    gradient = -((plus - minus) @ (std * z)) / n
    velocity = clip_up(velocity, gradient, rate, momentum, max_speed)
    slope = (plus + minus) @ ((std * z) ** 2 - std**2) / std / n
    new_std = np.clip(std + eta_std * slope, 0.8 * std, 1.2 * std)
    return mean + velocity, new_std, velocity


def sep_cma_es(state, noise, fitness, generation, rate_scale=None):
    """One generation of Ros and Hansen 2008; state is (mean, sigma, C, p_s, p_c)."""
    mean, sigma, variances, p_s, p_c = state
    n, d = noise.shape
    mu = n // 2
    weights = np.log((n + 1) / 2) - np.log(np.arange(1, mu + 1))
    weights /= weights.sum()
    mu_eff = 1 / np.sum(weights**2)
    best = np.argsort(fitness)[:mu]
    y = np.sqrt(variances) * noise[best]
    step = weights @ y
    c_s = (mu_eff + 2) / (d + mu_eff + 5)
    d_s = 1 + 2 * max(0, np.sqrt((mu_eff - 1) / (d + 1)) - 1) + c_s
    c_c = (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)
    scale = (d + 2) / 3 if rate_scale is None else rate_scale
    c_1 = scale * 2 / ((d + 1.3) ** 2 + mu_eff)
    c_mu = scale * 2 * (mu_eff - 2 + 1 / mu_eff) / ((d + 2) ** 2 + mu_eff)
    c_mu = min(1 - c_1, c_mu)
    chi = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
    p_s = (1 - c_s) * p_s + np.sqrt(c_s * (2 - c_s) * mu_eff) * step / np.sqrt(
        variances
    )
    length = np.linalg.norm(p_s)
    decay = np.sqrt(1 - (1 - c_s) ** (2 * (generation + 1)))
    h = float(length / decay < (1.4 + 2 / (d + 1)) * chi)
    p_c = (1 - c_c) * p_c + h * np.sqrt(c_c * (2 - c_c) * mu_eff) * step
    new = (1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu) * variances
    new = new + c_1 * p_c**2 + c_mu * weights @ y**2
    new_sigma = sigma * np.exp(c_s / d_s * (length / chi - 1))
    return mean + sigma * step, new_sigma, new, p_s, p_c


def alopex(weights, signs, temperature, change, uniform, delta, momentum):
    """One step of Unnikrishnan and Venugopal 1994; T is the mean of |dE|."""
    size = abs(change)
    temperature = momentum * temperature + (1 - momentum) * size if temperature else (
        size
    )  # fmt: skip
    down = 1 / (1 + np.exp(-signs * change / max(temperature, 1e-30)))
    signs = np.where(uniform < down, -1.0, 1.0)
    return weights + delta * signs, signs, temperature
