"""One run: a network, one method, its accuracy over steps and seconds, its memory."""

import math
import time

from benchmarks.accuracy.results import Results
from benchmarks.accuracy.training import examples
from benchmarks.forward.suites import SUITES, method
from benchmarks.timing import own_peak

POINTS = 10
"""Points of the curve of a run."""


def run_all(suite, name, trials, split, steps, output):
    """Run (config, seed) one after the other, in a process of its own (see `run`).

    What is the process's own, its peak of memory, is known of the first: what one
    leaves is there with the next.
    """
    for i, (config, seed) in enumerate(trials):
        row = run(suite, name, config, seed, split, steps)
        unknown = {"peak_mib": None, "process_cpu_seconds": None} if i else {}
        Results(output).add(row | unknown)


def run(suite, name, config, seed, split, steps):
    """Train once and return the row of the results.

    A sixth of the training set is held out, and the curve is of its accuracy; with the
    split "test" the test set is looked at once, at the end. While rates are tuned the
    curve is its last point.
    """
    import keras

    import keras_es

    chosen = SUITES[suite]
    data, points = examples("mnist", "validation"), POINTS if split == "test" else 1
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = keras_es.es_model(chosen.network(data.input_shape, data.num_classes))
    per_point = steps // points
    model.compile(
        method(name, config, steps, seed),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=math.gcd(per_point, 50),
    )
    held_out, curve = data.test_batches(), []
    start, cpu = time.perf_counter(), time.process_time()

    def measure(epoch, logs):
        point = {
            "step": (epoch + 1) * per_point,
            "seconds": round(time.perf_counter() - start, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
        }
        point["accuracy"] = model.evaluate(held_out, verbose=0, return_dict=True)[
            "accuracy"
        ]
        curve.append(point)
        print(f"{suite}, {name}, seed {seed}: {point}", flush=True)

    model.fit(
        data.train_batches(chosen.batch_size, seed=seed),
        epochs=points,
        steps_per_epoch=per_point,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=measure)],
    )
    accuracy = curve[-1]["accuracy"]
    if split == "test":
        tested = examples("mnist", "test").test_batches()
        accuracy = model.evaluate(tested, verbose=0, return_dict=True)["accuracy"]
    return {
        "suite": suite,
        "case": "mnist",
        "method": name,
        "config": config,
        "seed": seed,
        "split": split,
        "steps": steps,
        "accuracy": accuracy,
        "peak_mib": round(own_peak() / 2**20),
        "seconds": curve[-1]["seconds"],
        "cpu_seconds": curve[-1]["cpu_seconds"],
        # With the start of Python, the data and the test at the end.
        "process_cpu_seconds": round(time.process_time(), 2),
        "curve": curve,
    }
