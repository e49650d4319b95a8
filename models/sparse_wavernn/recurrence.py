"""The recurrence over a whole sequence: one product a step, forward and back.

    u = sigmoid(R_u h + x_u),  r = sigmoid(R_r h + x_r),
    e = tanh(r * (R_e h) + x_e),  h' = u * h + (1 - u) * e.

Automatic differentiation would add to the gradient of R at each step, a pass over all
of R. Here the way back is written out. With d the gradient at h' all gates are linear
in it, dL/d(R h) = d * a, where a is known of all steps at once; only

    d(t - 1) = dL/dy(t - 1) + d(t) * u(t) + (d(t) * a(t)) R^T

has to be done in turn, and dL/dR is one product over all steps. This file needs
TensorFlow, for the custom gradient.
"""

import tensorflow as tf


@tf.custom_gradient
def gated(x, kernel, state):
    """Return the hidden states h(1) ... h(T).

    Args:
        x: [batch, T, 3 * units], what is added to the gates u, r, e.
        kernel: [units, 3 * units], R of the gates u, r, e side by side.
        state: [batch, units], h(0).

    Returns:
        [batch, T, units].
    """
    inputs = tf.transpose(x, [1, 0, 2])
    steps = tf.shape(inputs)[0]

    def body(t, h, found):
        h = step(h, inputs[t], kernel)
        return t + 1, h, found.write(t, h)

    states = _each(steps, body, state)

    def gradient(dy):
        return _gradient(inputs, kernel, state, states, tf.transpose(dy, [1, 0, 2]))

    return tf.transpose(states, [1, 0, 2]), gradient


def step(h, x, kernel):
    """Return h', for h [batch, units] and x [batch, 3 * units]."""
    u, _, e, _ = _gates(h, x, kernel)
    return u * h + (1.0 - u) * e


def _gates(h, x, kernel):
    """Return u, r, e and R_e h."""
    h_u, h_r, h_e = tf.split(tf.matmul(h, kernel), 3, axis=-1)
    x_u, x_r, x_e = tf.split(x, 3, axis=-1)
    u, r = tf.sigmoid(h_u + x_u), tf.sigmoid(h_r + x_r)
    return u, r, tf.tanh(r * h_e + x_e), h_e


def _each(steps, body, state):
    """Call (t, carried, array) -> the same of t + 1 for all steps; return the array."""
    array = tf.TensorArray(state.dtype, steps, element_shape=state.shape)
    return tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(0), state, array),
        maximum_iterations=steps,
    )[2].stack()


def _gradient(inputs, kernel, state, states, dy):
    """Return the gradients by x, kernel and h(0); axes of sequences begin with time."""
    before = tf.concat([state[None], states[:-1]], axis=0)
    u, r, e, h_e = _gates(before, inputs, kernel)
    by_u = (before - e) * u * (1.0 - u)
    by_e = (1.0 - u) * (1.0 - e * e)
    by_r = by_e * h_e * r * (1.0 - r)
    products = tf.concat([by_u, by_r, by_e * r], axis=-1)
    back, steps = tf.transpose(kernel), tf.shape(inputs)[0]

    def through(t, d):
        """Return what d(t) adds to d(t - 1)."""
        return d * u[t] + tf.matmul(tf.tile(d, [1, 3]) * products[t], back)

    def body(i, carried, found):
        t = steps - 1 - i
        d = dy[t] + carried
        return i + 1, through(t, d), found.write(t, d)

    d = _each(steps, body, tf.zeros_like(state))
    threefold = tf.tile(d, [1, 1, 3])
    by_x = threefold * tf.concat([by_u, by_r, by_e], axis=-1)
    by_product = tf.reshape(threefold * products, [-1, products.shape[-1]])
    by_kernel = tf.matmul(
        tf.reshape(before, [-1, before.shape[-1]]), by_product, transpose_a=True
    )
    return tf.transpose(by_x, [1, 0, 2]), by_kernel, through(0, d[0])
