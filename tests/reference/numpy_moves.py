"""Mask methods in NumPy, from the papers and not from the package.

One linear layer y = x (w * m) under the mean squared error, trained by SGD with
momentum on one batch, the mask moved by SET, RigL, gradual magnitude pruning or
straight-through scores. Units of a pattern are lists of positions in the kernel.
"""

import numpy as np

from keras_es import patterns
from tests.reference import numpy_masks


def unit_sums(pattern, matrix):
    """Sum a matrix over each unit."""
    if isinstance(pattern, patterns.Channel):
        return matrix.sum(axis=0)
    if isinstance(pattern, patterns.Rows):
        return matrix.sum(axis=1)
    if isinstance(pattern, patterns.Block):
        height, width = matrix.shape
        sums = np.zeros((height // pattern.rows, width // pattern.cols))
        for (i, j), value in np.ndenumerate(matrix):
            sums[i // pattern.rows, j // pattern.cols] += value
        return sums
    return matrix.copy()


def groups_of(pattern, shape):
    """Index arrays of the units that compete with each other: all, or each group."""
    positions = np.arange(np.prod(shape)).reshape(shape)
    if not isinstance(pattern, patterns.NByM):
        return [positions.ravel()]
    height, width = shape
    return [
        positions[top : top + pattern.m, column]
        for top in range(0, height, pattern.m)
        for column in range(width)
    ]


def drop_and_grow(pattern, units, magnitude, growth, share):
    """Drop the smallest of the active units of a weight, grow the most wanted.

    Dropping looks at the whole weight; growing at what each group has lost.
    """
    count = int(units.sum())
    dropped = round(share * count)
    active = np.flatnonzero(units)
    order = active[np.argsort(magnitude.ravel()[active], kind="stable")]
    new = units.copy().ravel()
    new[order[:dropped]] = False
    for group in groups_of(pattern, units.shape):
        lost = int(units.ravel()[group].sum() - new[group].sum())
        free = group[~new[group]]
        wanted = free[np.argsort(-growth.ravel()[free], kind="stable")]
        new[wanted[:lost]] = True
    return new.reshape(units.shape)


def cosine_share(alpha, step, end_step):
    """Share of RigL, equation in section 3(2) of Evci et al. 2020."""
    return alpha / 2 * (1 + np.cos(np.pi * step / end_step))


def pruned(pattern, magnitude, final, initial_density, left):
    """Keep the largest units when `left` of the way to `final` units is left."""
    groups = groups_of(pattern, magnitude.shape)
    last = final / len(groups)
    first = initial_density * magnitude.size / len(groups)
    count = max(1, round(last + (first - last) * left))
    units = np.zeros(magnitude.size, bool)
    for group in groups:
        order = group[np.argsort(-magnitude.ravel()[group], kind="stable")]
        units[order[:count]] = True
    return units.reshape(magnitude.shape)


class Linear:
    """Weights, momentum and mask of y = x (w * m), in float64."""

    def __init__(self, x, y, kernel, units, pattern, rate, momentum):
        self.x, self.y = x.astype("float64"), y.astype("float64")
        self.kernel = kernel.astype("float64")
        self.velocity = np.zeros_like(self.kernel)
        self.units, self.pattern = units, pattern
        self.rate, self.momentum = rate, momentum

    @property
    def mask(self):
        spread = numpy_masks.expand(
            self.pattern, self.units.astype("uint8"), self.kernel.shape
        )
        return spread.astype(bool)

    def gradient(self):
        """dL/d(w * m) everywhere."""
        error = self.x @ (self.kernel * self.mask) - self.y
        return 2.0 * self.x.T @ error / error.size

    def train(self):
        """One step of the active weights; returns the dense gradient of before."""
        gradient = self.gradient()
        velocity = self.momentum * self.velocity - self.rate * gradient
        self.velocity = np.where(self.mask, velocity, self.velocity)
        self.kernel = np.where(self.mask, self.kernel + velocity, self.kernel)
        return gradient

    def move(self, units, from_zero):
        """Take new units; momentum of grown weights is zero, and the weight may be."""
        before = self.mask
        self.units = units
        grown = self.mask & ~before
        self.velocity[grown] = 0.0
        if from_zero:
            self.kernel[grown] = 0.0

    def sums(self, matrix):
        return unit_sums(self.pattern, matrix)
