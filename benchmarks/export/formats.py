"""The suite `formats`: bytes and latency of exported models."""

import gc
import statistics
import tempfile
import time

import numpy as np

from benchmarks.export import networks, runtimes
from benchmarks.timing import interleaved, median_ratio

CALLS = {networks.MLP: 20, networks.CNN: 4}
"""How many calls are timed as one, so that a runtime's caches are warm."""


def run(flags, cases=networks.CASES, width=512):
    """Return the rows of all networks."""
    return [
        row
        for network, pairs in cases.items()
        for row in _network(network, pairs, flags.rounds, width)
    ]


def _network(network, pairs, rounds, width):
    rows, calls = [], {}
    for pattern, sparsity in pairs:
        model = networks.build(network, pattern, sparsity, width)
        x = _input(model)
        want = np.asarray(model(x))
        for name in runtimes.FORMATS:
            key = (name, pattern, sparsity)
            row, call = _case(model, name, x, want)
            rows.append({"network": network, "format": name, "pattern": pattern,
                         "sparsity": sparsity, **row})  # fmt: skip
            calls[key] = _repeated(call, x, CALLS[network])
        gc.collect()
    seconds = interleaved(calls, rounds=rounds, warmup=2)
    for row in rows:
        key = (row["format"], row["pattern"], row["sparsity"])
        dense = (row["format"], "dense", 0.0)
        median = statistics.median(seconds[key]) / CALLS[network]
        row["microseconds"] = round(median * 1e6, 1)
        row["of_dense"] = round(median_ratio(seconds, key, dense), 3)
    return rows


def _input(model):
    shape = (1, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _case(model, name, x, want):
    """Export, load and check one model in one format."""
    with tempfile.TemporaryDirectory() as folder:
        path = runtimes.export(model, name, folder)
        size, packed = runtimes.sizes(path)
        call = runtimes.load(path)
        error = float(np.abs(call(x) - want).max() / np.abs(want).max())
    return {"bytes": size, "gzip_bytes": packed, "error": error}, call


def _repeated(call, x, calls):
    def case():
        # Of one thread the processor's time is its latency, whatever else runs.
        start = time.process_time()
        for _ in range(calls):
            call(x)
        return time.process_time() - start

    return case


def table(rows):
    """Return the tables of docs/deployment.md: one for each network."""
    networks_of_rows = dict.fromkeys(row["network"] for row in rows)
    return "\n\n".join(
        _table(network, [row for row in rows if row["network"] == network])
        for network in networks_of_rows
    )


def _table(network, rows):
    formats = list(dict.fromkeys(row["format"] for row in rows))
    lines = [
        f"| {network} | " + " | ".join(formats) + " |",
        "|---" * (len(formats) + 1) + "|",
    ]
    for pattern, sparsity in dict.fromkeys(
        (row["pattern"], row["sparsity"]) for row in rows
    ):
        cells = [
            f"{row['bytes'] / 1024:,.0f}, {row['gzip_bytes'] / 1024:,.0f}, "
            f"{row['microseconds']:,.0f}"
            for row in rows
            if (row["pattern"], row["sparsity"]) == (pattern, sparsity)
        ]
        name = pattern if pattern == "dense" else f"{pattern}, {sparsity:.0%}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
