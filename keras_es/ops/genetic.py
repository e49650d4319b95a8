"""Truncation selection and genomes that are lists of seeds."""

from keras import ops


def select(fitness, elite, count):
    """Return the indices of the `count` parents, the elite first, then the best.

    Args:
        fitness: [n] losses, lower is better; +inf ranks worst.
        elite: Index of the elite, int32 scalar.
        count: T <= n.

    Returns:
        int32 tensor [count].

    Example:

    >>> select(tf.constant([3.0, 1.0, 2.0]), 0, 2).numpy().tolist()
    [0, 1]
    """
    n = fitness.shape[0]
    first = ops.equal(ops.arange(n, dtype="int32"), elite)
    order = ops.argsort(ops.where(first, -float("inf"), fitness))
    return ops.cast(order[:count], "int32")


def inherit(genes, parents, mutations):
    """Return the genomes of survivors: their mutation, then their parent's genome.

    Args:
        genes: [T, W] integers, the parents' genomes, the newest gene first.
        parents: [T] integers, row of the parent of each survivor.
        mutations: [T] integers, the index of its mutation; -1 for none.

    Returns:
        [T, W] integers; the oldest gene falls off.
    """
    old = ops.take(genes, parents, axis=0)[:, :-1]
    return ops.concatenate([ops.expand_dims(mutations, 1), old], axis=1)


def one_lineage(genes, length):
    """Give rows that differ from the first in the oldest gene the first's genome.

    Args:
        genes: [T, W] integers.
        length: Number of genes that count, the newest.
    """
    oldest = ops.take(genes, length - 1, axis=1)
    same = ops.equal(oldest, oldest[0])
    return ops.where(ops.expand_dims(same, 1), genes, genes[:1])


def relative_ranks(fitness, groups):
    """Rank losses within groups: 0 for the best of each, then 1, ...

    Args:
        fitness: [groups * n] losses.
        groups: Number of groups, one after another.

    Returns:
        [groups * n] float32 ranks.
    """
    rows = ops.reshape(fitness, (groups, -1))
    better = ops.expand_dims(rows, 1) < ops.expand_dims(rows, 2)
    return ops.reshape(ops.sum(ops.cast(better, "float32"), axis=2), (-1,))
