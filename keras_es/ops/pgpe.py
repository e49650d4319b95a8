"""Policy gradients with parameter-based exploration, and ClipUp."""

from keras import ops


def pgpe_gradients(std, weighted_noise, weighted_square, population_size):
    """Gradients -(std/n) sum_k u_k z_k and -(std/n) sum_k u_k (z_k**2 - 1).

    The score functions of mean and of std, times std**2 as in the paper, so that steps
    shrink with the noise. Utilities u stand for -f and have mean 0, the baseline.

    Args:
        std: Tensor sigma.
        weighted_noise: sum_k u_k z_k of the same shape.
        weighted_square: sum_k u_k (z_k**2 - 1) of the same shape.
        population_size: n.

    Returns:
        Two tensors, to be descended.

    References:
        Sehnke, Osendorfer, Rueckstiess, Graves, Peters, Schmidhuber 2010,
        Parameter-exploring policy gradients, equations for symmetric sampling.
    """
    scale = -std / population_size
    return scale * weighted_noise, scale * weighted_square


def pgpe_std_update(std, gradient, learning_rate, max_change):
    """std - eta * g, kept within std * (1 -+ max_change).

    Args:
        std: Tensor sigma.
        gradient: g of the same shape.
        learning_rate: eta.
        max_change: Largest relative change, in (0, 1).
    """
    change = max_change * std
    return ops.clip(std - learning_rate * gradient, std - change, std + change)


def clip_up(velocities, gradients, learning_rate, momentum, max_speed):
    """v <- momentum * v - alpha * g/|g|, then v <- v * min(1, max_speed/|v|).

    Norms are of all tensors of a list together.

    Args:
        velocities: List of tensors v.
        gradients: List of tensors g of the same shapes.
        learning_rate: alpha.
        momentum: In [0, 1).
        max_speed: Largest |v|.

    Returns:
        The new velocities; the mean moves by them.

    References:
        Toklu, Liskowski, Srivastava 2020, ClipUp: a simple and powerful optimizer for
        distribution-based policy evolution, arXiv 2008.02387, algorithm 2.
    """
    step = learning_rate / ops.maximum(global_norm(gradients), 1e-12)
    velocities = [momentum * v - step * g for v, g in zip(velocities, gradients)]
    shrink = max_speed / ops.maximum(global_norm(velocities), 1e-12)
    return [v * ops.minimum(1.0, shrink) for v in velocities]


def global_norm(tensors):
    """Return the Euclidean norm of all numbers of a list of tensors.

    Example:

    >>> float(global_norm([tf.constant([3.0]), tf.constant([[4.0]])]))
    5.0
    """
    return ops.sqrt(sum(ops.sum(ops.square(t)) for t in tensors))
