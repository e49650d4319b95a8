"""Peak memory of a step against depth, and what fits within a limit."""

import time

from benchmarks.timing import own_peak

WIDTH, BATCH = 1024, 4096


def step(depth, method, limit_mib=None, batch=BATCH):
    """Return the peak of memory of the process in bytes, and the seconds of a step.

    Args:
        depth: Number of layers of 1,024 units.
        method: "forward", "backward", or "recomputed": backward, with the outputs of
            each group of sqrt(depth) layers computed again (`tf.recompute_grad`).
        limit_mib: None, or what the process may take of memory besides what it has
            with its libraries loaded, in MiB: allocations beyond it fail.
        batch: Examples.

    Returns:
        Dict of `base` (before the network is made), `peak` and `seconds`.
    """
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
    model.compile(chosen("sgd"), "mse", jit_compile=True)
    start = time.perf_counter()
    history = model.fit(
        tf.data.Dataset.from_tensors((x, y)), epochs=1, verbose=0
    ).history
    loss = history["loss"][0]
    if not np.isfinite(loss):
        raise RuntimeError(f"The step failed. Received: loss={loss}")
    return {
        "base": base, "peak": own_peak(), "seconds": time.perf_counter() - start,
    }  # fmt: skip


def _limit(more_mib):
    """Let the address space grow by no more than so many MiB."""
    import resource
    from pathlib import Path

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
