"""Peak memory of a step against depth, and what fits within a limit."""

import time
from pathlib import Path

from benchmarks.timing import in_subprocess, own_peak

WIDTH, BATCH = 1024, 4096


def step(depth, method, limit_mib=None, batch=BATCH):
    """Take two steps, and return the peaks of memory of the process in bytes.

    Args:
        depth: Number of layers of 1,024 units.
        method: "forward", "backward", or "recomputed": backward, with the outputs of
            each group of sqrt(depth) layers computed again (`tf.recompute_grad`).
        limit_mib: None, or what the process may take of memory besides what it has
            with its libraries loaded, in MiB: allocations beyond it fail.
        batch: Examples.

    Returns:
        Dict of `base` (before the network is made), `peak` (with what is taken while
        the step is compiled), `later` (the peak within the second step, None where the
        system cannot tell) and `seconds` of both steps.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_es

    if limit_mib is not None:
        _limit(limit_mib)
    x = tf.constant(np.random.default_rng(0).normal(size=(batch, WIDTH)), tf.float32)
    y = tf.zeros((batch, 1))
    base = own_peak()
    model = keras_es.es_model(network(depth, method == "recomputed"))
    optimizers = keras_es.optimizers
    chosen = optimizers.ForwardGradient if method == "forward" else optimizers.Static
    # So small a step that no loss fails, whatever the method's noise.
    sgd = keras.optimizers.SGD(1e-9)
    model.compile(chosen(sgd), "mse", jit_compile=True)
    start = time.perf_counter()
    batches = tf.data.Dataset.from_tensors((x, y))
    losses, peaks = [], []
    for _ in range(2):
        known = _begin_peak()
        losses += model.fit(batches, epochs=1, verbose=0).history["loss"]
        peaks.append(own_peak())
    if not np.isfinite(losses).all():
        raise RuntimeError(f"A step failed. Received: losses={losses}")
    return {
        "base": base, "peak": max(peaks), "later": peaks[-1] if known else None,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


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


def fits(depth, method, limit_mib):
    """Return whether a step can be taken within a limit (see `step`)."""
    try:
        in_subprocess(step, depth, method, limit_mib)
    except RuntimeError:  # It may be the process that ended.
        return False
    return True


def _limit(more_mib):
    """Let the address space grow by no more than so many MiB."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    now = pages * resource.getpagesize()
    bound = now + more_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


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
