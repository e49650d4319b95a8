"""Processor time of a step, all methods in turn in one process."""

import time

from benchmarks.forward.suites import mlp

BATCH, STEPS = 128, 10


def measure(rounds=25):
    """Return the milliseconds of a step in each round, a dict from case to list.

    MLP 1024-1024 on noise, SGD, XLA. Processor time, which other work on the machine
    does not lengthen, of `STEPS` steps.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_es
    from benchmarks.timing import interleaved
    from keras_es.optimizers import FiniteDifference, ForwardGradient, Static

    made = {
        "Keras": lambda: "sgd",
        "Static": lambda: Static("sgd"),
        "weights 1": lambda: ForwardGradient("sgd"),
        "outputs 1": lambda: ForwardGradient("sgd", perturb="outputs"),
        "difference 1": lambda: FiniteDifference("sgd"),
        "outputs 16": lambda: ForwardGradient("sgd", 16, perturb="outputs"),
    }
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH, 28, 28, 1)).astype("float32")
    y = np.arange(BATCH) % 10
    batches = tf.data.Dataset.from_tensors((x, y)).repeat()

    def case(optimizer):
        model = mlp(x.shape[1:], 10)
        model = model if optimizer == "sgd" else keras_es.es_model(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, jit_compile=True, steps_per_execution=STEPS)

        def steps():
            start = time.process_time()
            model.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0)
            return time.process_time() - start

        return steps

    seconds = interleaved({k: case(f()) for k, f in made.items()}, rounds, warmup=2)
    return {k: [1000 * s / STEPS for s in found] for k, found in seconds.items()}
