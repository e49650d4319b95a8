"""The suite `quantize`: accuracy of dense and sparse networks in float32 and int8."""

import dataclasses
import sys
import tempfile
import time

import numpy as np

from benchmarks.export import runtimes

BATCH, SPARSITY = 128, 0.9


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set, a network of models/, and how long it is trained.

    Args:
        model: Name of the network.
        epochs: Passes over the training data.
        rate: Learning rate that Adam begins with; it falls along a cosine.
        exclude: Layers that stay dense.
    """

    model: str
    epochs: int
    rate: float
    exclude: tuple


TASKS = {
    "mnist": Task("lenet", 6, 1e-3, ("logits",)),
    "cifar10": Task("cifar_small", 6, 3e-3, ("first", "logits")),
}


def run(flags, tasks=None):
    """Return the rows of all data sets."""
    rows = []
    for dataset, task in (tasks or TASKS).items():
        for method in ("dense", "gradual_magnitude"):
            start = time.perf_counter()
            model, data = train(dataset, task, method, flags.epochs or task.epochs)
            seconds = time.perf_counter() - start
            print(f"{dataset}, {method}: trained in {seconds:.0f} s", file=sys.stderr)
            for row in evaluate(model, data):
                rows.append({"dataset": dataset, "model": task.model,
                             "method": method, **row})  # fmt: skip
    return rows


def train(dataset, task, method, epochs):
    """Return a trained plain model, and the data set."""
    import keras

    import keras_es
    import models

    keras.utils.set_random_seed(0)
    data = keras_es.datasets.load(dataset)
    steps = epochs * (len(data.x_train) // BATCH)
    build = models.ARCHITECTURES[task.model].build
    model = build(data.input_shape, data.num_classes)
    adam = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(task.rate, steps)
    )
    if method != "dense":
        model = keras_es.sparsify(model, SPARSITY, exclude=list(task.exclude), seed=0)
        adam = keras_es.optimizers.for_run(method, adam, model, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(adam, loss, jit_compile=False)
    batches = data.train_batches(BATCH, seed=0)  # an endless stream
    model.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    return keras_es.strip_masks(model), data


def evaluate(model, data):
    """Return a row for float32, for int8 of Keras and for int8 of LiteRT."""
    import keras_es

    x = (data.x_test * np.float32(data.scale)).astype("float32")

    def row(what, outputs, kernels, path=None):
        sizes = runtimes.sizes(path) if path else (None, None)
        nonzeros = sum(map(np.count_nonzero, kernels))
        return {
            "weights": what,
            "accuracy": round(float((outputs.argmax(-1) == data.y_test).mean()), 4),
            "zeros": round(1 - float(nonzeros) / sum(k.size for k in kernels), 4),
            "bytes": sizes[0],
            "gzip_bytes": sizes[1],
        }

    with tempfile.TemporaryDirectory() as folder:
        float32 = runtimes.export(model, "LiteRT, zeros left out", folder)
        outputs = model.predict(x, batch_size=1000, verbose=0)
        yield row("float32", outputs, kernels_of(model), float32)
        int8 = runtimes.export(model, "LiteRT, int8", folder)
        call = runtimes.load(int8)
        outputs = np.concatenate([call(x[i : i + 1]) for i in range(len(x))])
        yield row("int8, LiteRT", outputs, matrices_of(int8), int8)
    quantized = keras_es.strip_masks(model)  # a copy
    quantized.quantize("int8")
    outputs = quantized.predict(x, batch_size=1000, verbose=0)
    yield row("int8, Keras", outputs, kernels_of(quantized))


def kernels_of(model):
    """Return all kernels, as they are stored."""
    return [v.numpy() for v in model.variables if v.path.endswith("kernel")]


def matrices_of(path):
    """Return the weights of a LiteRT file with two axes or more."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    found = []
    for detail in interpreter.get_tensor_details():
        shape = tuple(detail["shape"])
        if detail["dtype"] in (np.int8, np.float32) and len(shape) > 1:
            try:
                value = interpreter.get_tensor(detail["index"])
            except ValueError:  # what lies between two operations
                continue
            found += [value] if value.shape[0] > 1 else []
    return found


def table(rows):
    """Return the table of docs/deployment.md."""
    lines = [
        "| data, network | training | weights | accuracy | zeros | KiB | gzip KiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = [row["bytes"], row["gzip_bytes"]]
        sizes = ["-" if s is None else f"{s / 1024:,.0f}" for s in sizes]
        lines.append(
            f"| {row['dataset']}, {row['model']} | {row['method']} | {row['weights']} "
            f"| {row['accuracy']:.4f} | {row['zeros']:.1%} | {sizes[0]} | {sizes[1]} |"
        )
    return "\n".join(lines)
