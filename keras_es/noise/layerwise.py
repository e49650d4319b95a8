"""Which weights the draws of a generation perturb: all of them, or one layer each.

A pair with noise on one layer alone says nothing of the others; but its losses are not
disturbed by theirs, and what lies before the layer is computed once for all its
members. The losses of n_l pairs estimate the d_l unknowns of a layer with a variance of
about d_l |g_l|**2 / n_l, whose sum over layers with gradients of one size is least for
n_l in proportion to sqrt d_l.
"""

import dataclasses
import math

from keras_es.ops.perturbation import Still

PARTS = 16
"""Layers get sixteenths of the draws: these divide into chunks."""


@dataclasses.dataclass(frozen=True)
class LayerGroup:
    """Draws that perturb some of the weights.

    Attributes:
        noise: `WeightNoise` that leaves all other weights as they are.
        first_draw: Index of its first draw among those of a generation.
        draws: Number of its draws.
    """

    noise: object
    first_draw: int
    draws: int

    @property
    def variables(self):
        """The weights that have noise."""
        return moving(self.noise)


def moving(noise):
    """Return the weights that have noise."""
    return [
        v
        for v, p in zip(noise.variables, noise.perturbations)
        if not isinstance(p, Still)
    ]


def groups(noise, draws, apart):
    """Return `layerwise` groups if layers are perturbed apart, else the `whole`."""
    return layerwise(noise, draws) if apart else whole(noise, draws)


def whole(noise, draws):
    """Return the one group of all draws, for all weights that have noise."""
    return [LayerGroup(noise, 0, draws)]


def layerwise(noise, draws):
    """Divide draws among the layers whose weights have noise, in turn.

    Args:
        noise: `WeightNoise`.
        draws: Number of draws in a generation.

    Returns:
        List of `LayerGroup`.

    Raises:
        ValueError: If there are fewer draws than layers.
    """
    layers = {}
    for variable in moving(noise):
        layers.setdefault(_layer_name(variable), []).append(variable)
    if len(layers) < 2:
        return whole(noise, draws)
    if draws < len(layers):
        raise ValueError(
            "`Layerwise` gives each pair of members noise on one layer: there must be "
            f"as many draws (pairs / `pairs_per_draw`) as layers with noise on their "
            f"weights. Enlarge `population_size`. Received: {draws} draws, "
            f"{len(layers)} layers: {list(layers)}"
        )
    roots = [
        math.sqrt(sum(math.prod(v.shape) for v in variables))
        for variables in layers.values()
    ]
    found, first = [], 0
    for variables, count in zip(layers.values(), shares(roots, draws)):
        own = {id(v) for v in variables}
        others = [v for v in noise.variables if id(v) not in own]
        found.append(LayerGroup(noise.without(others), first, count))
        first += count
    return found


def shares(sizes, total):
    """Divide a number in proportion to sizes, in sixteenths of it where they do.

    Each gets at least one part; the largest takes up what rounding leaves.

    Example:

    >>> shares([14.4, 56.7], 64)
    [12, 52]
    >>> shares([1.0, 1.0, 100.0], 8)
    [1, 1, 6]
    """
    part = max(1, min(total // PARTS, total // len(sizes)))
    counts = [max(part, round(total * s / sum(sizes) / part) * part) for s in sizes]
    while sum(counts) != total:
        largest = counts.index(max(counts))
        counts[largest] += max(total - sum(counts), 1 - counts[largest])
    return counts


def _layer_name(variable):
    return variable.path.rsplit("/", 1)[0]
