"""What compaction saves: a value to print."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es._arguments import is_integer
from keras_es.conversion.compact.analysis import LeftAlone
from keras_es.conversion.compact.compaction import compacted
from keras_es.conversion.compact.counting import multiplications
from keras_es.conversion.report import table_lines
from keras_es.conversion.strip import stripped


@dataclasses.dataclass(frozen=True)
class CompactionReport:
    """What `compaction_report` found.

    Attributes:
        model: The compact model, as `strip_masks(model, compact=True)` returns it.
        before: Dict of the stripped model: "parameters", "multiplications" (of one
            example, with weights of dense, convolutional, attention and recurrent
            layers), "file_bytes" (of its .keras file) and, for each batch size b that
            was asked, "latency_b" in milliseconds (the median).
        after: The same of the compact model.
        left_alone: Layers of which channels stay, with the reason.
    """

    model: keras.Model
    before: dict[str, float]
    after: dict[str, float]
    left_alone: list[LeftAlone]

    @property
    def ratios(self) -> dict[str, float]:
        """After over before."""
        return {n: self.after[n] / v if v else 1.0 for n, v in self.before.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the model as plain Python values."""
        return {
            "before": self.before,
            "after": self.after,
            "ratios": self.ratios,
            "left_alone": [dataclasses.asdict(one) for one in self.left_alone],
        }

    def __str__(self) -> str:
        """Return a table."""
        table = [("", "before", "after", "after/before")]
        for name, before in self.before.items():
            form = "{:.3f}" if name.startswith("latency") else "{:,}"
            cells = form.format(before), form.format(self.after[name])
            table.append((_label(name), *cells, f"{self.ratios[name]:.3f}"))
        lines = table_lines(table, str.rjust)
        return "\n".join(lines + [f"left alone: {one}" for one in self.left_alone])


def _label(name):
    if name.startswith("latency_"):
        return f"latency, batch {name.removeprefix('latency_')} (ms)"
    return {"file_bytes": "file (bytes)"}.get(name, name)


def compaction_report(
    model: keras.Model, latency: Collection[int] = (), rounds: int = 15
) -> CompactionReport:
    """Compact a model and say what that saves.

    Args:
        model: A built Keras model, masked or plain.
        latency: Batch sizes to time, positive integers. The two models take turns, as
            compiled functions on zeros or empty texts; axes of unknown length count as
            one.
        rounds: How often each is timed, at least 1.

    Returns:
        `CompactionReport`: `print` it for a table; its `model` is the compact one.

    Raises:
        ValueError: As `strip_masks`, or if a batch size is no positive integer.

    Example:

    >>> channels = keras_es.patterns.Channel()
    >>> layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    >>> model = keras.Sequential([keras.Input((32,)), *layers])
    >>> sparse = keras_es.sparsify(model, 0.75, pattern=channels, exclude=["dense_1"])
    >>> report = compaction_report(sparse)
    >>> report.before["parameters"], report.after["parameters"]
    (2762, 698)
    """
    if isinstance(latency, str) or not isinstance(latency, Collection):
        raise ValueError(
            "`latency` must be a list of batch sizes to time, such as [1, 32]. "
            f"Received: latency={latency!r}"
        )
    batches = list(latency)
    for name, value in [("latency", b) for b in batches] + [("rounds", rounds)]:
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`{name}` must be positive integers: batch sizes to time, and how "
                f"often. Received: {name}={value!r}"
            )
    plain = stripped(model)
    compact, left_alone = compacted(plain)
    found = []
    for one in (plain, compact):
        values: dict[str, float] = {
            "parameters": one.count_params(),
            "multiplications": multiplications(one),
            "file_bytes": _file_bytes(one),
        }
        found.append(values)
    for batch in batches:
        for values, median in zip(found, _latencies((plain, compact), batch, rounds)):
            values[f"latency_{batch}"] = median
    return CompactionReport(compact, found[0], found[1], left_alone)


def _file_bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def _latencies(models, batch, rounds):
    """Return the medians, in milliseconds, of models that take turns."""

    def zeros(tensor):
        shape = [1 if size is None else size for size in tensor.shape[1:]]
        return tf.zeros((batch, *shape), tensor.dtype)  # of texts empty ones

    calls = []
    for model in models:
        data = keras.tree.map_structure(zeros, _compat.inputs_of(model))
        function = tf.function(
            lambda x, model=model: model(x, training=False), autograph=False
        )
        calls.append(lambda function=function, data=data: function(data))
    seconds: list[list[float]] = [[] for _ in models]
    for turn in range(rounds + 1):
        for call, times in zip(calls, seconds):
            start = time.perf_counter()
            keras.tree.map_structure(lambda t: t.numpy(), call())
            if turn:  # The first one traces.
                times.append(time.perf_counter() - start)
    return [statistics.median(times) * 1e3 for times in seconds]
