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
