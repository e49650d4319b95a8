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
        trials: List of (method, config, seed).
        split: "test" or "validation".
        generations: Of each run.
        output: File of the results.
    """
    for method, config, seed in trials:
        row = run(suite, method, config, seed, split, generations)
        Results(output).add(row)
        print(
            f"{suite}: {method} {config} seed {seed}: {split} accuracy "
            f"{row['accuracy']:.4f} ({row['seconds'] / 60:.1f} min)",
            flush=True,
        )


def run(suite, method, config, seed, split, generations):
    """Evolve once and return a row of the results, a dict.

    A sixth of the training set is held out; the curve is of its accuracy. The test set
    is looked at once, at the end, and only for the split "test".
    """
    import keras

    chosen = SUITES[suite]
    data = examples(chosen.dataset, "validation")
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = chosen.network(data.input_shape, data.num_classes)
    held_out, curve = data.test_batches(), []
    start, cpu = time.perf_counter(), time.process_time()

    def measure(model, generation):
        logs = model.evaluate(held_out, verbose=0, return_dict=True)
        minutes = (time.perf_counter() - start) / 60
        point = {"generation": generation, "accuracy": logs["accuracy"]}
        curve.append({**point, "minutes": round(minutes, 3)})
        print(f"{suite}: {curve[-1]}", flush=True)

    if method == "evosax":
        from benchmarks.pure.peer import evolve
    else:
        evolve = evolve_here
    batches = data.train_batches(config["batch_size"], seed=seed)
    model = evolve(model, method, config, generations, seed, batches, measure)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    tested = examples(chosen.dataset, split).test_batches()
    accuracy = model.evaluate(tested, verbose=0, return_dict=True)["accuracy"]
    return {
        "suite": suite,
        "case": chosen.dataset,
        "method": method,
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


def evolve_here(model, method, config, generations, seed, batches, measure):
    """Evolve a model through `fit` and return it.

    Args:
        model: Plain Keras model of classes, as logits.
        method: See `strategy`.
        config: See `strategy`.
        generations: Number of generations, a multiple of `POINTS`.
        seed: Seed of the noise.
        batches: Endless `tf.data.Dataset`, a batch for each generation.
        measure: Function (compiled model, generation), called `POINTS` times.
    """
    import keras

    import keras_es

    per_point = generations // POINTS
    model = keras_es.es_model(model)
    model.compile(
        strategy(method, config, generations, seed),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=math.gcd(per_point, 50),
    )
    call = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: measure(model, (epoch + 1) * per_point)
    )
    model.fit(
        batches,
        epochs=POINTS,
        steps_per_epoch=per_point,
        shuffle=False,
        verbose=0,
        callbacks=[call],
    )
    return model
