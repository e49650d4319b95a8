"""What each worker of test_multi_worker.py runs; alone, it is the process to equal.

python worker.py FOLDER [CASE ...]
"""

import os
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_es
from keras_es.distribution import strategies, workers
from keras_es.noise import Outputs
from keras_es.optimizers import SNES, GuidedNES, OpenES
from tests.training.common import cross_entropy, data, mlp, sgd

BATCH = 12  # of 30 examples: with 3 workers the last batch of 6 is 2 for each
EXAMPLES = 30


def trained(strategy, build, optimizer, jit_compile, unknown_length=False, **kwargs):
    """Train for two epochs; return the model and its history."""
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        model = keras_es.sparsify(build(), 0.5, seed=0)
        model.compile(
            optimizer(), cross_entropy(), metrics=["accuracy"],
            jit_compile=jit_compile, **kwargs
        )  # fmt: skip
    batches = tf.data.Dataset.from_tensor_slices(data(EXAMPLES)).batch(BATCH)
    if unknown_length:
        batches = batches.filter(lambda x, y: True)
    history = model.fit(
        batches, epochs=2, verbose=0, validation_data=data(20, seed=1)
    ).history
    return model, history


def state(model):
    """Return all weights and optimizer variables by path."""
    variables = [*model.weights, *model.optimizer.variables]
    return {f"{i} {v.path}": np.asarray(v.value) for i, v in enumerate(variables)}


def statistics():
    return mlp(keras.layers.BatchNormalization(), keras.layers.Dropout(0.2, seed=3))


CASES = {
    "plain": lambda s: trained(s, mlp, sgd, jit_compile=False),
    "plain, steps_per_execution": lambda s: trained(
        s, mlp, sgd, jit_compile=False, steps_per_execution=2
    ),
    "plain, unknown length": lambda s: trained(
        s, mlp, sgd, jit_compile=False, unknown_length=True
    ),
    "plain, statistics": lambda s: trained(s, statistics, sgd, jit_compile=True),
    "guided": lambda s: trained(
        s, statistics, lambda: GuidedNES(sgd(), 2), jit_compile=False
    ),
    "snes": lambda s: trained(s, mlp, lambda: SNES(sgd(), 2), jit_compile=False),
    "pure": lambda s: trained(s, mlp, lambda: SNES(None, 4), jit_compile=False),
    "pure, one population": lambda s: trained(
        s,
        statistics,
        lambda: OpenES(None, 4, semi_updates=False, noise=Outputs(0.1)),
        jit_compile=True,
    ),
}


def main(folder, *cases):
    """Run cases, by default all; write what came out to FOLDER/WORKER."""
    alone = "TF_CONFIG" not in os.environ
    strategy = tf.distribute.get_strategy() if alone else strategies.multi_worker(60)
    name = "alone" if alone else str(workers.cluster()[1])
    results = pathlib.Path(folder, name)
    results.mkdir()
    for case in cases or CASES:
        model, history = CASES[case](strategy)
        history = {f"history {key}": value for key, value in history.items()}
        np.savez(results / f"{case}.npz", **history, **state(model))
    x, y = data(20, seed=2)
    # 20 examples in batches of 7: of the last 6, or of 7, no equal shares can be made.
    evaluated = model.evaluate(x, y, batch_size=7, verbose=0)
    predicted = model.predict(x, batch_size=7, verbose=0)
    np.savez(results / "served.npz", evaluated=evaluated, predicted=predicted)
    if workers.is_chief(strategy):
        model.save(results / "model.keras")
        keras_es.strip_masks(model).export(str(results / "exported"), verbose=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
