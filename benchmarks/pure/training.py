"""One run: a network evolved by losses alone, and what it gets right."""

import math
import time

from benchmarks.accuracy.results import Results
from benchmarks.accuracy.training import examples
from benchmarks.pure.suites import SUITES, strategy

POINTS = 20
"""Points of the curve of a run."""


def run_all(suite, trials, split, generations, output):
    """Evolve all trials, and write their rows (called in a process of its own).

    Args:
        suite: Name of the suite.
        trials: List of (config, seed).
        split: "test" or "validation".
        generations: Of each run.
        output: File of the results.
    """
    for config, seed in trials:
        row = run(suite, config, seed, split, generations)
        Results(output).add(row)
        print(
            f"{suite}: {config} seed {seed}: {split} accuracy {row['accuracy']:.4f} "
            f"({row['seconds'] / 60:.1f} min)",
            flush=True,
        )


def run(suite, config, seed, split, generations):
    """Evolve once and return a row of the results, a dict.

    A sixth of the training set is held out; the curve is of its accuracy. The test set
    is looked at once, at the end, and only for the split "test".
    """
    import keras

    import keras_es

    chosen = SUITES[suite]
    data = examples(chosen.dataset, "validation")
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = keras_es.es_model(chosen.network(data.input_shape, data.num_classes))
    per_point = max(1, generations // POINTS)
    model.compile(
        strategy(chosen.method, config, generations, seed),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=math.gcd(per_point, 50),
    )
    held_out, curve = data.test_batches(), []
    start, cpu = time.perf_counter(), time.process_time()

    def measure(epoch, logs):
        logs = model.evaluate(held_out, verbose=0, return_dict=True)
        curve.append(
            {
                "generation": (epoch + 1) * per_point,
                "accuracy": logs["accuracy"],
                "minutes": (time.perf_counter() - start) / 60,
            }
        )
        print(f"{suite}: {curve[-1]}", flush=True)

    model.fit(
        data.train_batches(config["batch_size"], seed=seed),
        epochs=generations // per_point,
        steps_per_epoch=per_point,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=measure)],
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    tested = examples(chosen.dataset, split).test_batches()
    accuracy = model.evaluate(tested, verbose=0, return_dict=True)["accuracy"]
    return {
        "suite": suite,
        "case": chosen.dataset,
        "method": chosen.method,
        "config": config,
        "seed": seed,
        "split": split,
        "steps": generations,
        "weights": model.count_params(),
        "accuracy": accuracy,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "curve": curve,
    }
