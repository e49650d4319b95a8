"""One run: a network trained by one method, and what it gets right."""

import dataclasses
import functools
import math
import time

import numpy as np

from benchmarks.accuracy import methods
from benchmarks.accuracy.results import Results
from benchmarks.accuracy.suites import SUITES

VALIDATION = 6
"""One in so many training examples is for validation while methods are tuned."""


def run_all(suite, case, trials, split, steps, output):
    """Train all trials of one case that are not done yet, and write their rows.

    A function of what JSON can hold, to be called in a process of its own: TensorFlow
    keeps the programs of all models until its process ends.

    Args:
        suite: Name of the suite.
        case: Index of the case.
        trials: List of (method, config, seed).
        split: "test", or "validation" to hold out a part of the training set.
        steps: Number of steps, None for that of the suite.
        output: File of the results.
    """
    results = Results(output)
    for method, config, seed in trials:
        row = run(suite, case, method, config, seed, split, steps)
        results.add(row)
        print(
            f"{row['case']}: {method} {config} seed {seed}: {split} accuracy "
            f"{row['accuracy']:.4f} ({row['seconds']:.0f} s)",
            flush=True,
        )


def run(suite, case, method, config, seed, split="test", steps=None):
    """Train once and return a row of the results, a dict."""
    import keras

    chosen, name = SUITES[suite], suite
    data = examples(chosen.dataset, split)
    steps = steps or chosen.steps
    start = time.perf_counter()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(chosen, chosen.cases[case], method, data, seed)
    model.compile(
        methods.optimizer(method, config, model, steps, seed),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=math.gcd(steps, 50),
    )
    batches = data.train_batches(chosen.batch_size, seed=seed, augment=chosen.augment)
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    accuracy = model.evaluate(data.test_batches(), verbose=0, return_dict=True)
    return {
        "suite": name,
        "case": "dense" if method == "dense" else chosen.cases[case].name,
        "pattern": "dense" if method == "dense" else chosen.cases[case].label,
        "wanted_sparsity": 0.0 if method == "dense" else chosen.cases[case].sparsity,
        "method": method,
        "config": config,
        "seed": seed,
        "split": split,
        "steps": steps,
        "accuracy": accuracy["accuracy"],
        "sparsity": sparsity(model),
        "seconds": round(time.perf_counter() - start, 1),
    }


def build(suite, case, method, data, seed):
    """Return the network, masked unless the method is "dense"; not compiled."""
    import keras_es
    import models

    architecture = models.ARCHITECTURES[suite.model]
    model = architecture.build(data.input_shape, data.num_classes)
    if method == "dense":
        return model
    paths = [
        layer.name
        for layer in model.layers
        if hasattr(layer, "kernel") and layer.name not in suite.exclude
    ]
    chosen = case.patterns * (len(paths) if len(case.patterns) == 1 else 1)
    return keras_es.sparsify(
        model,
        case.sparsity,
        pattern=dict(zip(paths, chosen, strict=True)),
        allocation=methods.allocation(method, suite.allocation),
        exclude=list(suite.exclude),
        seed=seed,
    )


def sparsity(model):
    """Return the share of zeros in the masked weights, as the masks have it."""
    import keras_es

    return keras_es.sparsity_report(model).sparsity


@functools.cache
def examples(dataset, split):
    """Return a data set, with validation examples in place of its test examples.

    The split is the same for all seeds. Nothing of the test set is kept under
    "validation", so a search cannot look at it.
    """
    from keras_es import datasets

    data = datasets.load(dataset)
    if split == "test":
        return data
    order = np.random.default_rng(0).permutation(len(data.x_train))
    held, kept = np.split(order, [len(order) // VALIDATION])
    return dataclasses.replace(
        data,
        x_train=data.x_train[kept],
        y_train=data.y_train[kept],
        x_test=data.x_train[held],
        y_test=data.y_train[held],
    )
