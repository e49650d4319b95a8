"""Block-sparse layers against dense ones: training, memory, inference.

A 2048 x 2048 layer at 90 % (k of R blocks in each column) and a head of ten classes,
batch 128, Adam or SNES around Adam; the dense baseline is the faster of plain Keras
with and without XLA. Inference is that of the SavedModel that `export` writes, through
its default signature, called from Python.
"""

import functools
import math
import statistics
import tempfile

import numpy as np

from benchmarks.timing import (
    Row,
    in_subprocess,
    interleaved,
    median_ratio,
    peak_memory,
)

SUITE = "block_sparse"
WIDTH, BATCH, CLASSES, SPARSITY = 2048, 128, 10, 0.9
BLOCKS = (32, 64)


def run(quick=False):
    """Return the rows of this suite."""
    return [*training(quick), *memory(quick), *inference(quick)]


def network(block=None, *, width=WIDTH, layers=1, sparsity=SPARSITY):
    """Return a network of hidden layers, dense or of square blocks."""
    import keras

    import keras_es

    hidden = functools.partial(keras.layers.Dense, width, "relu")
    if block is not None:
        hidden = functools.partial(
            keras_es.layers.BlockSparseDense, width, "relu",
            sparsity=sparsity, block_size=block,
        )  # fmt: skip
    stack = [keras.Input((width,)), *(hidden() for _ in range(layers))]
    kind = keras.Sequential if block is None else keras_es.ESSequential
    return kind([*stack, keras.layers.Dense(CLASSES)])


def compiled(model, optimizer="adam", jit_compile=True):
    """Compile a network for training; "snes" is SNES around Adam."""
    import keras

    import keras_es

    chosen = keras.optimizers.Adam(1e-3)
    if optimizer == "snes":
        chosen = keras_es.optimizers.SNES(chosen, population_size=8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(chosen, loss, jit_compile=jit_compile)
    return model


def data(width, steps, batch=BATCH):
    """Return random batches as a cached dataset."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, width)).astype("float32")
    y = rng.integers(0, CLASSES, batch * steps)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)
    return batches.cache().prefetch(2)


def training(quick):
    """Return the rows of whole training steps through `fit`."""
    # So many that the 10 ms in which an epoch begins do not count as steps.
    steps, rounds = (3, 2) if quick else (60, 9)
    batches = data(WIDTH, steps)
    dense = {
        "dense xla": compiled(network()),
        "dense": compiled(network(), jit_compile=False),
    }
    sparse = {
        f"{optimizer}, blocks of {block}": compiled(network(block), optimizer)
        for optimizer in ("adam", "snes")
        for block in BLOCKS
    }
    fits = {
        name: functools.partial(model.fit, batches, shuffle=False, verbose=0)
        for name, model in {**dense, **sparse}.items()
    }
    seconds = interleaved(fits, rounds=rounds, warmup=2)
    return [_step_row(seconds, name, dense, steps) for name in sparse]


def _step_row(seconds, name, dense, steps):
    def milliseconds(case):
        return statistics.median(seconds[case]) / steps * 1e3

    return Row(
        SUITE,
        f"training step, {WIDTH}x{WIDTH} at 90 %, {name}",
        milliseconds(name),
        "ms",
        baseline=min(map(milliseconds, dense)),
        ratio=median_ratio(seconds, name, *dense),
        target="<= 0.35",
        detail={case: milliseconds(case) for case in dense},
    )


def memory(quick):
    """Return the rows of the memory of weights and slots.

    With a batch of 8 the peak of a process is that of weights, gradients and slots;
    with 128 the gathered inputs take their part, for which there is no target.
    """
    width, large = (256, 512) if quick else (WIDTH, 8192)
    cases = (None, *BLOCKS)
    stored = {b: in_subprocess(train_in_process, width, b)[0] for b in cases}
    rows = [_memory_row(f"variables, {width}x{width}", b, stored) for b in BLOCKS]
    for batch, target in ((8, "<= 0.15"), (BATCH, None)):
        # What libraries and compiler take is that of a network of next to nothing.
        given = (SPARSITY, batch)
        idle = peak_memory(train_in_process, 64, None, *given)
        peaks = {
            b: peak_memory(train_in_process, large, b, *given) - idle for b in cases
        }
        what = f"peak of the process, {large}x{large}, batch {batch}"
        rows += [_memory_row(what, b, peaks, target) for b in BLOCKS]
    return [*rows, _large_row(quick)]


def _memory_row(what, block, found, target="<= 0.15"):
    return Row(
        SUITE,
        f"{what} at 90 %, adam, blocks of {block}",
        found[block] / 2**20,
        "MiB",
        baseline=found[None] / 2**20,
        ratio=found[block] / found[None],
        target=target,
    )


def _large_row(quick):
    width = 1024 if quick else 16_384
    stored, peak = in_subprocess(train_in_process, width, 64, 0.99)
    return Row(
        SUITE,
        f"peak of the process, {width}x{width} at 99 %, adam, blocks of 64",
        peak / 2**20,
        "MiB",
        target="<= 2048",
        detail={"variables": stored / 2**20},
    )


def train_in_process(width, block, sparsity=SPARSITY, batch=BATCH):
    """Train for some steps in this process; return the bytes of weights and slots."""
    model = compiled(network(block, sparsity=sparsity, width=width))
    history = model.fit(
        data(width, 4, batch), epochs=2, shuffle=False, verbose=0
    ).history
    if not math.isfinite(history["loss"][-1]):
        raise RuntimeError(f"Training diverged. Received: history={history}")
    return sum(_size(v) for v in [*model.layers[0].variables, *_slots(model)])


def _slots(model):
    """Return the slots of the first layer's weights."""
    shapes = {tuple(v.shape) for v in model.layers[0].trainable_variables}
    return [v for v in model.optimizer.variables if tuple(v.shape) in shapes]


def _size(variable):
    return math.prod(variable.shape) * np.dtype(variable.dtype).itemsize


def inference(quick):
    """Return the rows of the latency of exported models."""
    rows = []
    for layers in (1, 4):
        for batch in (1, 64):
            rows += _latency_rows(layers, batch, quick)
    return rows


def _latency_rows(layers, batch, quick):
    import tensorflow as tf

    calls, rounds = (3, 2) if quick else (20, 15)
    x = tf.random.normal([batch, WIDTH])
    cases = {"empty": _repeated(_empty(), x, calls)}
    for block in (None, *BLOCKS):
        serve = _exported(network(block, layers=layers))
        cases["dense" if block is None else block] = _repeated(serve, x, calls)
    seconds = interleaved(cases, rounds=rounds, warmup=2)
    spent = {
        name: statistics.median(values) / calls * 1e3
        for name, values in seconds.items()
    }
    return [
        Row(
            SUITE,
            f"SavedModel of {layers} hidden layers, batch {batch}, blocks of {block}",
            spent[block],
            "ms",
            baseline=spent["dense"],
            ratio=median_ratio(seconds, block, "dense"),
            target="<= 0.3",
            detail={"model that does nothing": spent["empty"]},
        )
        for block in BLOCKS
    ]


def _exported(model):
    """Return the default signature of a model that was exported and loaded."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        loaded = tf.saved_model.load(folder)
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    return functools.partial(_call, loaded, serve, name)


def _call(loaded, serve, name, x):
    # `loaded` is kept: a function that outlives it has lost its variables.
    (found,) = serve(**{name: x}).values()
    return found


def _empty():
    """Return an exported model that does nothing: what any call costs."""
    import keras

    first = keras.layers.Cropping1D((0, WIDTH - CLASSES))
    shape = keras.layers.Reshape((WIDTH, 1))
    return _exported(keras.Sequential([keras.Input((WIDTH,)), shape, first]))


def _repeated(function, x, calls):
    def call():
        for _ in range(calls):
            function(x).numpy()

    return call


if __name__ == "__main__":
    for row in run():
        print(row)
