"""Compaction: how much of the multiplications that go comes out as latency.

    python -m benchmarks.compact --save      # some minutes
    python -m benchmarks.compact --quick     # one small network, to try it

Half of the channels of each network are masked out, `keras_es.strip_masks` makes the
plain model with and without `compact`, and both take turns as SavedModel, LiteRT file
and (if onnxruntime and tf2onnx are installed) ONNX file, at batch 1 and 32. The number
is

    (latency before / after) / (multiplications before / after),

1 if the whole of what is no longer multiplied is saved; its target is 0.9. A third
model, of which 97 % is gone, tells what a call costs that multiplies next to nothing.
"""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.command import RESULTS, make_parser, split_names, stoppable
from benchmarks.export import runtimes
from benchmarks.picture import COLORS
from benchmarks.timing import Row, interleaved, machine_info, median_ratio

SUITE, TARGET, BATCHES, ROUNDS = "compact", ">= 0.9", (1, 32), 11


def mobilenet():
    """Return MobileNetV2 at 96 pixels, and how it is masked."""
    import keras

    build = keras.applications.MobileNetV2
    return build((96, 96, 3), weights=None, classes=10), channels("predictions")


def mobilenet_groups():
    """Return MobileNetV2, what its sums tie together masked as one."""
    model, masks = mobilenet()
    return model, grouped(model, masks)


def resnet():
    """Return ResNet50 at 64 pixels, and how it is masked."""
    import keras

    build = keras.applications.ResNet50
    model = build(input_shape=(64, 64, 3), weights=None, classes=10)
    return model, channels("predictions")


def resnet_groups():
    """Return ResNet50, what its sums tie together masked as one."""
    model, masks = resnet()
    return model, grouped(model, masks)


def convnet():
    """Return the convnet for CIFAR-10, and how it is masked."""
    import models

    model = models.ARCHITECTURES["cifar_convnet"].build((32, 32, 3), 10)
    return model, channels("logits")


def encoder(width=256, heads=8, blocks=4, length=64):
    """Return a transformer's encoder, of which half of heads and units are masked."""
    import keras
    from keras import layers

    from keras_es.patterns import Block, Channel

    x = inputs = keras.Input((length, width))
    for index in range(blocks):
        attention = layers.MultiHeadAttention(heads, width // heads)
        x = layers.LayerNormalization()(x + attention(x, x))
        y = layers.Dense(4 * width, "relu", name=f"wide_{index}")(x)
        x = layers.LayerNormalization()(x + layers.Dense(width)(y))
    outputs = layers.Dense(10)(layers.GlobalAveragePooling1D()(x))
    patterns = {".*/value": Block(width, width // heads), "wide_.*": Channel()}
    masks = {"pattern": patterns, "allocation": dict.fromkeys(patterns, 0.5)}
    return keras.Model(inputs, outputs), masks


def channels(*exclude):
    """Return the arguments of `sparsify` that mask half of the channels."""
    from keras_es.patterns import Channel

    return {"sparsity": 0.5, "pattern": Channel(), "exclude": exclude}


def grouped(model, masks):
    """Return arguments of `sparsify` in which what sums tie together has one mask."""
    import keras_es

    return {**masks, "pattern": keras_es.channel_groups(model, masks["exclude"])}


NETWORKS = {
    "MobileNetV2": mobilenet,
    "MobileNetV2 groups": mobilenet_groups,
    "ResNet50": resnet,
    "ResNet50 groups": resnet_groups,
    "cifar_convnet": convnet,
    "encoder": encoder,
}


def measured(name, rounds):
    """Return the rows of one network."""
    import keras_es

    model, masks = NETWORKS[name]()
    report = keras_es.compaction_report(keras_es.sparsify(model, **masks))
    print(f"{name}\n{report}\n", flush=True)
    plain = keras_es.strip_masks(keras_es.sparsify(model, **masks))
    shape = tuple(model.inputs[0].shape[1:])
    saved = report.before["multiplications"] / report.after["multiplications"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pair = {"before": plain, "after": report.model, "empty": nearly_empty(name)}
        for form in FORMATS:
            if form == "ONNX" and not has_onnx():
                continue
            loaded = {}
            for which, one in pair.items():
                path = runtimes.export(one, form, Path(folder, which))
                loaded[which] = runtimes.load(path, threads())
            for batch in BATCHES:
                calls = repeated(on_batch(form, loaded, batch, shape))
                seconds = interleaved(calls, rounds=rounds, warmup=2)
                faster = 1.0 / median_ratio(seconds, "after", "before")
                medians = {k: statistics.median(v) * 1e3 for k, v in seconds.items()}
                rows.append(
                    Row(
                        SUITE,
                        f"{name}, {form}, batch {batch}",
                        medians["after"],
                        "ms",
                        medians["before"],
                        faster / saved,
                        TARGET,
                        {
                            "times_faster": faster,
                            "times_fewer_multiplications": saved,
                            "empty_ms": medians["empty"],
                            **report.as_dict(),
                        },
                    )
                )
                print(line(rows[-1]), flush=True)
    return rows


def nearly_empty(name):
    """Return a network without 97 % of what can be masked, compacted."""
    import keras_es

    model, masks = NETWORKS[name]()
    if isinstance(masks.get("allocation"), dict):
        masks = {**masks, "allocation": dict.fromkeys(masks["allocation"], 0.97)}
    else:
        masks = {**masks, "sparsity": 0.97}
    return keras_es.strip_masks(keras_es.sparsify(model, **masks), compact=True)


def repeated(calls):
    """Return functions that call each so often that a timer sees it: 50 ms.

    They return the seconds of one call.
    """
    times = {}
    for call in calls.values():
        call()
        start = time.perf_counter()
        call()
        times[call] = time.perf_counter() - start
    count = max(1, int(0.05 / max(times.values())))

    def timed(call):
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count

    return {name: lambda call=call: timed(call) for name, call in calls.items()}


def on_batch(form, loaded, batch, shape):
    """Return functions that call what `runtimes.load` returned on one batch."""
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype("float32")
    x = tf.constant(x) if form == "SavedModel" else x
    return {name: lambda call=call: call(x) for name, call in loaded.items()}


def has_onnx():
    """Tell whether ONNX files can be written and run."""
    return all(importlib.util.find_spec(n) for n in ("onnxruntime", "tf2onnx"))


def threads():
    """Return how many threads a runtime may take: as many as TensorFlow is told."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or os.cpu_count()


FORMATS = ("SavedModel", "LiteRT", "ONNX")


def line(row):
    """Return a row as one line of the table."""
    detail = row.detail
    return (
        f"{row.case:<40} {row.baseline:9.2f} -> {row.value:9.2f} ms  "
        f"{detail['times_faster']:5.2f} of "
        f"{detail['times_fewer_multiplications']:5.2f}: {row.ratio:.2f}"
    )


def main(argv=None):
    """Measure, print and save."""
    parser = make_parser("compact", __doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="separated by ,")
    parser.add_argument("--quick", action="store_true", help="few rounds, no target")
    parser.add_argument("--save", action="store_true", help="write to docs/results/")
    flags = parser.parse_args(argv)
    names = split_names(parser, "networks", flags.networks, NETWORKS)
    names = ["cifar_convnet"] if flags.quick else names
    rows = [r for n in names for r in measured(n, 3 if flags.quick else ROUNDS)]
    print("\n".join(map(line, rows)))
    if flags.save:
        import dataclasses

        results = {
            "machine": machine_info(),
            "threads": threads(),
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        path = RESULTS / "compact.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        draw(rows, RESULTS / "compact.png")


def draw(rows, path):
    """Draw what is left of multiplications and of latencies, network by network."""
    from matplotlib.figure import Figure

    networks: dict = {}
    for row in rows:
        name, _, rest = row.case.partition(", ")
        bars = networks.setdefault(name, {})
        bars["multiplications"] = 1.0 / row.detail["times_fewer_multiplications"]
        bars[rest] = 1.0 / row.detail["times_faster"]
    labels = list(dict.fromkeys(label for bars in networks.values() for label in bars))
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(labels)
    for index, label in enumerate(labels):
        places = [place + index * width for place in range(len(networks))]
        heights = [bars[label] for bars in networks.values()]
        drawn = axes.bar(places, heights, width, label=label, color=COLORS[index])
        axes.bar_label(drawn, fmt="%.2f", fontsize=6)
    axes.axhline(1.0, color="black", linewidth=0.8)
    middle = 0.4 - width / 2
    axes.set_xticks([place + middle for place in range(len(networks))], networks)
    axes.set_ylabel("after / before (less is better)")
    axes.set_title("Half of the channels masked out, then removed", fontsize=11)
    figure.legend(fontsize=8, ncols=4, loc="outside lower center")
    axes.set_ylim(0, 1.05)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(stoppable("compact", main))
