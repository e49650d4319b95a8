"""The test functions of the papers, Beale's and Rosenbrock's, from far starts."""

FUNCTIONS = {
    "beale": ((1.0, 1.0), (3.0, 0.5), 0.005),
    "rosenbrock": ((-1.0, 0.0), (1.0, 1.0), 5e-4),
}
"""Name -> (start, minimum, learning rate of SGD)."""

NEAR = 0.05
"""A run has arrived when it is as near to the minimum as this."""

KINDS = ("backpropagation", "rademacher", "normal")


def value(name, w):
    """Return the function of w, a tensor [2]."""
    x, y = w[0], w[1]
    if name == "beale":
        terms = (1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3)
        return sum(term**2 for term in terms)
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


def run(name, kind, seed=0, steps=15000, every=50):
    """Return the path [points, 2] of a run, and the first step at which it is near.

    Args:
        name: Of `FUNCTIONS`.
        kind: Of `KINDS`: the exact gradient, or the law of a forward gradient.
        seed: Of the directions.
        steps: Of the run, a multiple of `every`.
        every: Steps from one point of the path to the next.
    """
    import numpy as np
    import tensorflow as tf

    from keras_es.noise.directions import Directions
    from keras_es.ops import directional
    from keras_es.populations.derivatives import along_tangent

    start, minimum, rate = FUNCTIONS[name]

    def gradient(w, step):
        if kind == "backpropagation":
            with tf.GradientTape() as tape:
                tape.watch(w)
                loss = value(name, w)
            return tape.gradient(loss, w)
        (drawn,) = Directions(seed, kind, step).of_weights({0: (2,)}, tf.range(1))
        found, _ = along_tangent(lambda v: (value(name, v[0]), None), [w], [drawn[0]])
        return directional.weighted_directions(found[None], drawn)

    @tf.function(autograph=False)
    def go_on(w, step):
        return tf.while_loop(
            lambda i, _: i < every,
            lambda i, w: (i + 1, w - rate * gradient(w, step + i)),
            (tf.constant(0, tf.int64), w),
        )[1]

    path = [tf.constant(start)]
    for first in range(0, steps, every):
        path.append(go_on(path[-1], tf.constant(first, tf.int64)))
    path = np.array(path)
    near = np.flatnonzero(np.linalg.norm(path - minimum, axis=1) < NEAR)
    return path.tolist(), int(near[0]) * every if len(near) else None
