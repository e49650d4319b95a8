"""A GRU with gates of 0 and 1: NRES against truncated backpropagation.

`copy`: a stream of bits, of which the one of three steps before is wanted, in windows
of two steps; and by backpropagation in windows of eight too, which reach as far.
`text`: the next character of the licences of installed packages. Backpropagation goes
through a straight-through relaxation of the gates. All sides are tuned by as many short
runs of another seed, and see as many steps of the same stream.
"""

import importlib.metadata
import itertools
import time

import numpy as np

from benchmarks.unrolled import report as tables

SEEDS = 1
LAG, T, ROWS, POINTS = 3, 400, 200, 15
UNITS, CHARACTERS = 16, 32

# Steps of the stream; a run of tuning has the sixth of them.
STEPS, SHORT = {"copy": 6000, "text": 8000}, 6

# Task, method and W.
CASES = {
    "copy NRES": ("copy", "NRES", 2),
    "copy backpropagation": ("copy", "backpropagation", 2),
    "copy backpropagation, W = 8": ("copy", "backpropagation", 8),
    "text NRES": ("text", "NRES", 8),
    "text backpropagation": ("text", "backpropagation", 8),
}

# What is tuned: Adam's rate, and sigma or the norm that gradients are clipped to.
SETTINGS = {
    "NRES": tuple(itertools.product((0.003, 0.01), (0.03, 0.1, 0.3))),
    "backpropagation": tuple(itertools.product((0.003, 0.01, 0.03), (1.0, None))),
}


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


def windows(task, length, seed):
    """Yield (x, y) of shape [ROWS, length, ...] without end, rows going on."""
    rng = np.random.default_rng(seed)
    if task == "copy":
        past = np.zeros((ROWS, LAG))
        while True:
            bits = np.concatenate(
                [past, rng.choice([-1.0, 1.0], (ROWS, length))], axis=1
            )
            past = bits[:, -LAG:]
            x, y = bits[:, LAG:, None], bits[:, :length, None] > 0.0
            yield x.astype("float32"), y.astype("float32")
    letters = text()
    place = rng.integers(0, len(letters), ROWS)
    eye = np.eye(CHARACTERS, dtype="float32")
    while True:
        index = (place[:, None] + np.arange(length + 1)) % len(letters)
        place = place + length
        chars = letters[index]
        yield eye[chars[:, :-1]], eye[chars[:, 1:]]


def run(case, seed):
    """Tune, train and return the row."""
    begun, cpu = time.perf_counter(), time.process_time()
    steps = STEPS[CASES[case][0]]
    tried = []
    for setting in SETTINGS[CASES[case][1]]:
        curve, _ = train(case, setting, 1000 + seed, steps // SHORT, 2)
        end = curve[-1][1]
        tried.append((end if np.isfinite(end) else float("inf"), setting))
    best = min(tried, key=lambda pair: pair[0])[1]
    tuning = time.process_time() - cpu
    cpu = time.process_time()
    curve, found = train(case, best, seed, steps, POINTS)
    return {
        "loss": curve[-1][1],
        **found,
        "setting": best,
        "tried": tried,
        "seconds": time.perf_counter() - begun,
        "tuning_cpu_seconds": tuning,
        "cpu_seconds": time.process_time() - cpu,
        "curve": [[float(v) for v in row] for row in curve],
    }


def train(case, setting, seed, steps, points):
    """Train by one setting; return [(steps of the stream, test loss)] and the rest."""
    import keras
    import tensorflow as tf

    from keras_es import unrolled

    task, method, length = CASES[case]
    keras.utils.set_random_seed(seed)
    sizes = (1, UNITS, 1) if task == "copy" else (CHARACTERS, UNITS, CHARACTERS)
    kind = keras.losses.BinaryCrossentropy
    loss = (kind if task == "copy" else keras.losses.CategoricalCrossentropy)(
        from_logits=True
    )
    nres, (rate, other) = method == "NRES", setting
    network = make_network(1 if nres else ROWS, *sizes)
    shapes = [(ROWS, length, sizes[0]), (ROWS, length, sizes[2])]
    stream = tf.data.Dataset.from_generator(
        lambda: windows(task, length, seed),
        output_signature=tuple(tf.TensorSpec(s, tf.float32) for s in shapes),
    )
    every = steps // length // points
    if nres:
        model = unrolled.UnrolledModel(unrolled.Recurrent(network, loss, horizon=T))
        model.compile(
            unrolled.NRES(
                keras.optimizers.Adam(rate), particles=ROWS, unroll_length=length,
                sigma=other, seed=seed,
            ),
            steps_per_execution=every,
        )  # fmt: skip
    else:
        model = network
        model.compile(
            keras.optimizers.Adam(rate, clipnorm=other), loss, jit_compile=False,
            steps_per_execution=every,
        )  # fmt: skip
    iterator = iter(stream)
    part = tf.data.Dataset.from_generator(
        lambda: (next(iterator) for _ in range(every)),
        output_signature=stream.element_spec,
    )
    test = test_losses(task, network, sizes, loss)
    curve = [(0, test())]
    for point in range(points):
        fit = {"shuffle": False} if not nres else {}
        history = model.fit(part, steps_per_epoch=every, verbose=0, **fit).history
        curve.append(((point + 1) * every * length, test()))
    found = {"training_loss": history["loss"][-1]}
    found["weights"] = int(sum(np.prod(v.shape) for v in network.trainable_variables))
    return curve, found


def test_losses(task, network, sizes, loss):
    """Return a function: the loss of the weights over 200 sequences of 100 steps."""
    plain = make_network(ROWS, *sizes)
    x, y = next(windows(task, 100, 5000))

    def test():
        plain.set_weights(network.get_weights())
        for layer in plain.layers:
            if hasattr(layer, "reset_state"):
                layer.reset_state()
        return float(loss(y, plain(x)))

    return test


def report(rows, path):
    """Draw the curves and return the lines of the table."""
    lines = [
        "| | weights | rate, and σ or clipnorm | loss in training | test loss "
        "| CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    by_case = tables.by_case(rows, CASES)
    for case, mine in by_case.items():
        cells = (
            f"{mine[0]['weights']:,}",
            "; ".join(sorted({", ".join(map(str, r["setting"])) for r in mine})),
            tables.spread([r["training_loss"] for r in mine]),
            tables.spread([r["loss"] for r in mine]),
            tables.spread([r["cpu_seconds"] for r in mine], "{:.0f}"),
        )
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    figure, panels = tables.make_figure(2)
    for axes, task in zip(panels, STEPS):
        mine = {c: m for c, m in by_case.items() if c.startswith(task)}
        for color, (case, runs) in tables.colored(mine):
            tables.band(axes, [r["curve"] for r in runs], case, color)
        axes.set(xlabel="steps of the stream", ylabel="test loss", title=task)
        if mine:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    return lines
