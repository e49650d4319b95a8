"""Gaussian noise whose directions are orthogonal to each other."""

from keras import ops


def orthogonal_rows(noise):
    """Make the rows of Gaussian noise orthogonal and leave their lengths as they are.

    In blocks of d rows: Q of Z^T = Q R with a positive diagonal of R is distributed
    uniformly, whatever the lengths |z_k| are, so each row is N(0, I) as before. For
    n <= d rows and a linear function with gradient g the estimate

        e = (1/n) sum_k (g . z_k) z_k

    still has the mean g, and E|e|**2 = (d + 2)/n |g|**2 in place of
    (d + n + 1)/n |g|**2.

    Args:
        noise: [n, d] of standard normal numbers.

    Returns:
        Tensor [n, d].

    Example:

    >>> rows = orthogonal_rows(ops.convert_to_tensor([[3.0, 4.0], [1.0, 0.0]]))
    >>> abs(float(ops.sum(rows[0] * rows[1]))) < 1e-6
    True

    References:
        Choromanski, Rowland, Sindhwani, Turner, Weller 2018, Structured evolution with
        compact architectures for scalable policy optimization, arXiv 1804.02395.
        Mezzadri 2007, How to generate random matrices from the classical compact
        groups (the signs of R).
    """
    count, size = noise.shape
    whole = count // size * size
    blocks = []
    if whole:
        square = ops.reshape(noise[:whole], (-1, size, size))
        blocks.append(ops.reshape(_orthogonal(square), (whole, size)))
    if count > whole:
        blocks.append(_orthogonal(noise[None, whole:])[0])
    lengths = ops.sqrt(ops.sum(ops.square(noise), axis=1, keepdims=True))
    return ops.concatenate(blocks, axis=0) * lengths


def _orthogonal(blocks):
    """Return orthonormal rows for each of the blocks [blocks, rows <= d, d]."""
    q, r = ops.qr(ops.transpose(blocks, (0, 2, 1)))
    negative = ops.diagonal(r, axis1=1, axis2=2) < 0
    return ops.transpose(ops.where(negative[:, None], -q, q), (0, 2, 1))
