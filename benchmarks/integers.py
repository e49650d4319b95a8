"""A network of int8 weights is trained by evolution, at one byte a weight.

    python -m benchmarks.integers

A multilayer perceptron on handwritten digits is quantized by Keras to int8 while its
weights are still random, and `QES` moves the integers by whole steps. Beside it, for a
while, small steps with and without error feedback: without it what is less than half
a step of the grid is lost. Results go to docs/results/integers.json.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.command import RESULTS, make_parser, require_positive, stoppable

OUTPUT = RESULTS / "integers.json"
HIDDEN, MEMBERS, BATCH = 16, 64, 256
SIGMA, REPLAY = 12.0, 16
CASES = [(16.0, 0.9), (1.0, 0.9), (1.0, 0.0)]  # step size, feedback


def digits():
    """Return (x, y) of training and test, in an order drawn once."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x / 16).astype("float32")[order], y[order]
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])


def network(seed):
    """Return a random network, quantized to int8."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Dense(HIDDEN, activation="relu"),
        keras.layers.Dense(10),
    ]
    model = keras.Sequential([keras.Input((64,)), *layers])
    for layer in layers:
        layer.quantize("int8")
    return model


def measure(seed, generations, step_size, feedback):
    """Return a row: accuracy on test, and bytes of what is kept."""
    import keras
    import tensorflow as tf

    import keras_es

    (x, y), (x_test, y_test) = digits()
    model = network(seed)
    model.compile(
        keras_es.optimizers.QES(
            MEMBERS, sigma=SIGMA, step_size=step_size, feedback=feedback,
            replay=REPLAY, seed=seed,
        )
    )  # fmt: skip
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = tf.function(lambda x, y: cross_entropy(y, model(x)), autograph=False)

    def reward(model, generation):
        rows = np.random.default_rng([seed, generation]).integers(len(x), size=BATCH)
        return -float(loss(tf.constant(x[rows]), tf.constant(y[rows])))

    def of_test():
        return float(np.mean(np.argmax(model(x_test), -1) == y_test))

    kernels = [layer.kernel for layer in model.layers]
    first = [kernel.numpy() for kernel in kernels]
    before, start = of_test(), time.process_time()
    history = keras_es.evolve(model, reward, generations=generations, verbose=0)
    moved = [k.numpy() != f for k, f in zip(kernels, first)]
    weights = sum(f.size for f in first)
    kept = {id(v): v for v in [*model.variables, *model.optimizer.variables]}
    return {
        "seed": seed,
        "generations": generations,
        "step_size": step_size,
        "feedback": feedback,
        "accuracy_before": before,
        "accuracy": of_test(),
        "loss_first": -history.history["reward"][0],
        "loss_last": -history.history["reward"][-1],
        "moved": float(sum(m.sum() for m in moved) / weights),
        "weights": weights,
        "bytes_kept": sum(v.numpy().nbytes for v in kept.values()),
        "bytes_of_float_weights": 4 * weights,
        "seconds": time.process_time() - start,
    }


def parse(argv):
    """Return the flags."""
    parser = make_parser("integers", __doc__)
    parser.add_argument("--seeds", type=int, default=1, help="number of runs of each")
    parser.add_argument("--generations", type=int, default=300)
    parser.add_argument("--output", default=str(OUTPUT), help="JSON")
    flags = parser.parse_args(argv)
    require_positive(parser, flags, "seeds", "generations")
    return flags


def main(argv=None):
    """Run, write the JSON, and print what came out."""
    flags = parse(argv)
    output = Path(flags.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(flags.seeds):
        for step_size, feedback in CASES:
            # Small steps are there to see whether anything moves.
            count = flags.generations if step_size > 1 else flags.generations // 5
            rows.append(measure(seed, max(count, 1), step_size, feedback))
            print(rows[-1], flush=True)
            output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(stoppable("integers", main))
