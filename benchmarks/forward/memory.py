"""Peak memory of a step against depth, and what fits within a limit."""

import math
import time
from pathlib import Path

from benchmarks.forward import limit
from benchmarks.timing import ProcessFailedError, in_subprocess, own_peak

WIDTH, BATCH = 1024, 4096

LIMITED_BATCH, LIMITED_STEPS, LIMITED_RATE = 8192, 5, 1e-5
"""What is trained within a limit."""

ENVIRONMENT = {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1", "MALLOC_ARENA_MAX": "1"}
"""TensorFlow's own allocator of tensors on CPUs grows by doubling and gives nothing
back to the system; in one arena threads use again what others have freed."""


def step(depth, method, batch=BATCH):
    """Take two steps, and return the peaks of memory of the process in bytes.

    Args:
        depth: Number of layers of 1,024 units.
        method: "forward", "backward", or "recomputed": backward, with the outputs of
            each group of sqrt(depth) layers computed again (`tf.recompute_grad`).
        batch: Examples.

    Returns:
        Dict of `base` (before the network is made), `peak` (with what is taken while
        the step is compiled), `later` (the peak within the second step, None where the
        system cannot tell) and `seconds` of both steps.
    """
    batches = _batches(batch)
    base = own_peak()
    start = time.perf_counter()
    # So small a step that no loss fails, whatever the method's noise.
    model, peaks = _compiled(depth, method, 1e-9), []
    for _ in range(2):
        known = _begin_peak()
        _train(model, batches)
        peaks.append(own_peak())
    return {
        "base": base, "peak": max(peaks), "later": peaks[-1] if known else None,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def train(depth, method, limit_mib, batch=LIMITED_BATCH):
    """Train within a limit of memory, and return the losses and what was taken.

    Args:
        depth: See `step`.
        method: See `step`.
        limit_mib: What the process may take besides its libraries and its data, in
            MiB. It is ended when it has taken more.
        batch: Examples.

    Returns:
        Dict of `losses`, that of each step before it, and `taken` in bytes.
    """
    batches = _batches(batch)
    base = own_peak()
    look = limit.begin(limit_mib)
    model = _compiled(depth, method, LIMITED_RATE)
    losses = [_train(model, batches) for _ in range(LIMITED_STEPS)]
    look()
    return {"losses": losses, "taken": own_peak() - base}


def fits(depth, method, limit_mib):
    """Return what `train` returns, or None if it takes more than the limit."""
    try:
        return in_subprocess(train, depth, method, limit_mib, env=ENVIRONMENT)[0]
    except ProcessFailedError as error:
        if error.exit_code != limit.EXCEEDED:
            raise
        return None


def weights(depth):
    """Return the bytes of the weights of a network."""
    return 4 * (depth * (WIDTH**2 + WIDTH) + WIDTH + 1)


def least_limit(depth):
    """Return MiB below which no method can train: weights, outputs of two layers."""
    return math.ceil((weights(depth) + 2 * 4 * LIMITED_BATCH * WIDTH) / 2**20)


def _batches(batch):
    import numpy as np
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(batch, WIDTH)).astype("float32")
    # The mean can be learned in a few steps.
    return tf.data.Dataset.from_tensors((x, 3.0 + 0.5 * x[:, :1]))


def _compiled(depth, method, rate):
    import keras

    import keras_es

    keras.utils.set_random_seed(0)
    model = keras_es.es_model(network(depth, method == "recomputed"))
    optimizers = keras_es.optimizers
    chosen = optimizers.ForwardGradient if method == "forward" else optimizers.Static
    model.compile(chosen(keras.optimizers.SGD(rate)), "mse", jit_compile=True)
    return model


def _train(model, batches):
    """Take a step and return the loss before it."""
    fitted = model.fit(batches, epochs=1, shuffle=False, verbose=0)
    loss = fitted.history["loss"][0]
    if not math.isfinite(loss):
        raise RuntimeError(f"A step failed. Received: loss={loss}")
    return loss


def _begin_peak():
    """Let the peak of this process begin anew, and tell whether it does."""
    import ctypes

    try:
        # What was freed is given back to the system first.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def network(depth, recomputed):
    """Return `depth` dense layers with ReLU, and one output."""
    import keras

    inputs = keras.Input((WIDTH,))
    x = inputs
    group = max(1, round(depth**0.5))
    for first in range(0, depth, group):
        layers = [
            keras.layers.Dense(WIDTH, "relu", kernel_initializer="he_normal")
            for _ in range(min(group, depth - first))
        ]
        if recomputed:
            x = recomputing(layers)(x)
        else:
            for layer in layers:
                x = layer(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


def recomputing(layers):
    """Return a layer that computes some layers again in the backward pass."""
    import keras
    import tensorflow as tf

    class Recomputing(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def build(self, shape):
            for layer in self.layers:
                layer.build(shape)

        def call(self, x):
            values = [
                tf.convert_to_tensor(v) for layer in layers for v in layer.variables
            ]

            @tf.recompute_grad
            def through(x, *values):
                for kernel, bias in zip(values[::2], values[1::2]):
                    x = tf.nn.relu(x @ kernel + bias)
                return x

            return through(x, *values)

    return Recomputing()
