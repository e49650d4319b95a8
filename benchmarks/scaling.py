"""How time and traffic of a step grow with devices: `python -m benchmarks.scaling`.

LeNet-300-100, 64 examples a replica, on 1, 2 and 4 virtual devices of the CPU, each in
a process of its own. Virtual devices share the cores of one machine, so not the time
itself says something, but its ratio to plain gradient training on as many. Bytes are
those of the collectives in the traced graph. docs/scaling.md makes use of both.
Results go to docs/results/scaling.json.
"""

import json
import statistics
import sys
from pathlib import Path

from benchmarks.command import RESULTS, make_parser, stoppable
from benchmarks.timing import in_subprocess, interleaved, machine_info, median_ratio

OUTPUT = RESULTS / "scaling.json"
EXAMPLES = 64  # of a replica
METHODS = ("plain", "guided_nes", "snes", "snes, 32 members", "snes, one population")


def bytes_of_step(weights, masked, units, statistics, members, guided):
    """Return the bytes that a replica gives to collectives in each step.

    Args:
        weights: Number of trainable weights.
        masked: How many of them have a mask.
        units: Number of units of the masks.
        statistics: Number of moving statistics.
        members: Members of a replica in one step.
        guided: Whether the method uses dL/dm.

    Returns:
        4 w for the gradients, 2 m for the union of masks, 4 s, 4 d for dL/dm, 8 n.
    """
    return 4 * weights + 2 * masked + 4 * statistics + 4 * units * guided + 8 * members


def build(method):
    """Return the compiled model."""
    import keras

    import keras_es
    import models
    from keras_es.optimizers import SNES, GuidedNES

    optimizer = {
        "plain": lambda: keras.optimizers.Adam(),
        "guided_nes": lambda: GuidedNES("adam"),
        "snes": lambda: SNES("adam", 8),
        "snes, 32 members": lambda: SNES("adam", 32),
        "snes, one population": lambda: SNES("adam", 8, semi_updates=False),
    }[method]()
    lenet = models.ARCHITECTURES["lenet"].build((28, 28, 1), 10)
    model = keras_es.sparsify(lenet, 0.9, seed=0)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    return model


def counts(model):
    """Return what `bytes_of_step` wants to know of a model."""
    import keras_es

    masked = keras_es.masked_weights(model)
    optimizer = model.optimizer
    return {
        "weights": sum(v.shape.num_elements() for v in model.trainable_variables),
        "masked": sum(m.size for m in masked),
        "units": sum(m.units for m in masked),
        "statistics": 0,
        "members": getattr(optimizer, "members_in_step", 0),
        "guided": bool(getattr(optimizer, "needs_guidance", False)),
    }


def measure(replicas, steps, rounds):
    """Return a row for each method, on some virtual devices."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import traffic
    from keras_es.distribution import strategies

    strategies.split_cpu(replicas)
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        devices = [f"CPU:{i}" for i in range(replicas)]
        strategy = tf.distribute.MirroredStrategy(devices)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES * replicas, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, size=EXAMPLES * replicas)
    batches = tf.data.Dataset.from_tensors((x, y)).repeat()
    cases, rows = {}, {}
    for method in METHODS:
        with strategy.scope():
            model = build(method)
        with traffic.recorded() as record:
            model.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)

        def case(model=model):
            model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)

        cases[method] = case
        rows[method] = _traffic(record, replicas, model, method)
    seconds = interleaved(cases, rounds)
    for method, row in rows.items():
        row["ms_per_step"] = 1000 * statistics.median(seconds[method]) / steps
        row["ratio_to_plain"] = median_ratio(seconds, method, "plain")
    return list(rows.values())


def _traffic(record, replicas, model, method):
    if replicas == 1:  # Keras asks for sums that then go nowhere
        record = []
    each, generation = (
        sum(size for _, size, branch in record if branch == wanted) / replicas
        for wanted in (False, True)
    )
    turns = getattr(model.optimizer, "taking_turns", None)
    known = counts(model)
    if method == "plain":
        known["masked"] = 0
    return {
        "replicas": replicas,
        "method": method,
        "bytes_of_step": each,
        "bytes_by_the_model": bytes_of_step(**known) if replicas > 1 else 0,
        "bytes_of_generation": generation,
        "steps_of_generation": 1 if turns is None else turns.steps,
        **known,
    }


def main(argv=None):
    """Measure, print a table and write the JSON."""
    parser = make_parser("scaling", __doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps and rounds")
    parser.add_argument("--output", default=str(OUTPUT), help="default: %(default)s")
    flags = parser.parse_args(argv)
    steps, rounds = (8, 3) if flags.quick else (40, 7)
    rows = []
    for replicas in (1, 2, 4):
        rows += in_subprocess(measure, replicas, steps, rounds)[0]
        for row in rows[-len(METHODS) :]:
            print(
                f"{row['replicas']} x {row['method']:<22} "
                f"{row['ms_per_step']:7.2f} ms a step, {row['ratio_to_plain']:5.2f} of "
                f"plain; {row['bytes_of_step']:11,.0f} bytes, by the model "
                f"{row['bytes_by_the_model']:11,}; {row['bytes_of_generation']:11,.0f} "
                f"once in {row['steps_of_generation']} steps",
                flush=True,
            )
    result = {"quick": flags.quick, "machine": machine_info(), "rows": rows}
    Path(flags.output).parent.mkdir(parents=True, exist_ok=True)
    Path(flags.output).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(stoppable("scaling", main))
