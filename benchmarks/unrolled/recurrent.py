"""A GRU with gates of 0 and 1: NRES against truncated backpropagation.

`copy`: a stream of bits, of which the one of six steps before is wanted, in windows of
four steps. `text`: the next character of the licences of installed packages.
Backpropagation goes through a straight-through relaxation of the gates.
"""

import importlib.metadata
import time

import numpy as np

from benchmarks.unrolled import report as tables

SEEDS = 1
LAG, W, T, ROWS, POINTS = 6, 4, 400, 200, 20
UNITS, TEXT_UNITS, CHARACTERS = 16, 24, 32
UPDATES = {"copy": 6000, "text": 3000}
CASES = tuple(f"{t} {m}" for t in UPDATES for m in ("NRES", "backpropagation"))


def make_network(rows, inputs, units, outputs):
    """Return a stateful model whose gates are steps; equal for both sides."""
    import keras

    def step(x):
        soft = keras.ops.hard_sigmoid(x)
        hard = keras.ops.cast(x > 0.0, x.dtype)
        return soft + keras.ops.stop_gradient(hard - soft)

    x = keras.Input(batch_shape=(rows, None, inputs))
    hidden = keras.layers.GRU(
        units, recurrent_activation=step, stateful=True, return_sequences=True
    )(x)
    return keras.Model(x, keras.layers.Dense(outputs)(hidden))


def text():
    """Return the licences of installed packages as indices of characters."""
    parts = []
    for each in importlib.metadata.distributions():
        for file in each.files or []:
            if "LICENSE" in file.name.upper() and len(parts) < 60:
                path = file.locate()
                if path.is_file():
                    parts.append(path.read_text(encoding="utf-8", errors="ignore"))
    joined = " ".join(" ".join(sorted(parts)).lower().split())
    known = " abcdefghijklmnopqrstuvwxyz.,()-"
    return np.array([known.find(c) for c in joined if c in known])[:400_000]


def windows(task, seed):
    """Yield (x, y) of shape [ROWS, W, ...] without end, rows going on."""
    rng = np.random.default_rng(seed)
    if task == "copy":
        past = np.zeros((ROWS, LAG))
        while True:
            bits = np.concatenate([past, rng.choice([-1.0, 1.0], (ROWS, W))], axis=1)
            past = bits[:, -LAG:]
            x, y = bits[:, LAG:, None], bits[:, :W, None] > 0.0
            yield x.astype("float32"), y.astype("float32")
    letters = text()
    place = rng.integers(0, len(letters), ROWS)
    eye = np.eye(CHARACTERS, dtype="float32")
    while True:
        index = (place[:, None] + np.arange(W + 1)) % len(letters)
        place = place + W
        chars = letters[index]
        yield eye[chars[:, :-1]], eye[chars[:, 1:]]


def run(case, seed):
    """Train and return the row."""
    import keras
    import tensorflow as tf

    from keras_es import unrolled

    task, method = case.split()
    keras.utils.set_random_seed(seed)
    sizes = (1, UNITS, 1) if task == "copy" else (CHARACTERS, TEXT_UNITS, CHARACTERS)
    kind = keras.losses.BinaryCrossentropy
    loss = (kind if task == "copy" else keras.losses.CategoricalCrossentropy)(
        from_logits=True
    )
    updates = UPDATES[task]
    nres = method == "NRES"
    network = make_network(1 if nres else ROWS, *sizes)
    shapes = [(ROWS, W, sizes[0]), (ROWS, W, sizes[2])]
    stream = tf.data.Dataset.from_generator(
        lambda: windows(task, seed),
        output_signature=tuple(tf.TensorSpec(s, tf.float32) for s in shapes),
    )
    if nres:
        model = unrolled.UnrolledModel(unrolled.Recurrent(network, loss, horizon=T))
        model.compile(
            unrolled.NRES(
                keras.optimizers.Adam(0.01), particles=ROWS, unroll_length=W,
                sigma=0.03, seed=seed,
            )
        )  # fmt: skip
    else:
        model = network
        model.compile(keras.optimizers.Adam(0.003), loss, jit_compile=False)
    every, curve = updates // POINTS, []
    begun, cpu = time.perf_counter(), time.process_time()
    iterator = iter(stream)
    part = tf.data.Dataset.from_generator(
        lambda: (next(iterator) for _ in range(every)),
        output_signature=stream.element_spec,
    )
    for point in range(POINTS):
        history = model.fit(part, steps_per_epoch=every, verbose=0).history
        curve.append(((point + 1) * every * W, history["loss"][-1]))
    return {
        "loss": curve[-1][1],
        "weights": int(sum(np.prod(v.shape) for v in network.trainable_variables)),
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "curve": [[float(v) for v in row] for row in curve],
    }


def report(rows, path):
    """Draw the curves and return the lines of the table."""
    lines = ["| | weights | loss at the end | CPU seconds |", "|---|---|---|---|"]
    by_case = tables.by_case(rows, CASES)
    for case, mine in by_case.items():
        cells = (
            f"{mine[0]['weights']:,}",
            tables.spread([r["loss"] for r in mine]),
            tables.spread([r["cpu_seconds"] for r in mine], "{:.0f}"),
        )
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    figure, panels = tables.make_figure(2)
    for axes, task in zip(panels, UPDATES):
        mine = {c: m for c, m in by_case.items() if c.startswith(task)}
        for color, (case, runs) in tables.colored(mine):
            tables.band(axes, [r["curve"] for r in runs], case, color)
        axes.set(xlabel="steps of the stream", ylabel="loss", title=task)
        if mine:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
