"""The pictures of the front page: `python -m benchmarks.front` draws them again.

They are drawn from what the other benchmarks wrote to docs/results; nothing is
measured. A picture whose results are not there is left out.
"""

import json
import sys
from pathlib import Path

from benchmarks.accuracy.report import summary
from benchmarks.accuracy.results import Results
from benchmarks.command import RESULTS, make_parser, stoppable
from benchmarks.picture import COLORS

OURS = {
    "guided_es": "GuidedES",
    "guided_nes": "GuidedNES",
    "open_es": "OpenES, losses alone",
}
STANDARD = {
    "gmp_global": "gradual magnitude, global",
    "gradual_magnitude": "gradual magnitude",
    "rigl": "RigL",
    "set": "SET",
    "static": "fixed random mask",
}
PEERS = (
    ("full rank, over pygad", "pygad", "baseline"),
    ("full rank, over evosax", "evosax", "baseline"),
    ("rank 1, over inference", "plain inference", "baseline"),
    ("full rank, over evosax", "keras_es, full rank", "value"),
    ("full rank, 8 pairs a draw, over evosax", "keras_es, 8 pairs a draw", "value"),
    ("rank 1, over evosax", "keras_es, rank 1", "value"),
)
"""Beginning of a row's case, name of the bar, and which number of the row it is."""

OWN, OTHER = COLORS[0], "#999999"


def draw_accuracy(folder, path):
    """Draw accuracy over sparsity of single weights, ours beside the standard methods.

    Args:
        folder: Where the results are.
        path: File to write.
    """
    rows = Results(folder / "accuracy-mnist-lenet.jsonl").rows()
    cases = summary([row for row in rows if row["split"] == "test"])
    points = sorted((s, found) for (p, s), found in cases.items() if p == "weights")
    dense = cases["dense", 0.0]["dense"][0]
    figure, axes = _figure(4.2)
    axes.axhline(100 * dense, color="black", ls="--", lw=1)
    axes.annotate("dense", (0, 100 * dense), (0, 3), textcoords="offset points")
    lines = {**OURS, **STANDARD}
    known = [m for m in lines if any(m in found for _, found in points)]
    for color, method in zip(COLORS, known):
        own = method in OURS
        places = [i for i, (_, found) in enumerate(points) if method in found]
        axes.errorbar(
            places,
            [100 * points[i][1][method][0] for i in places],
            [100 * points[i][1][method][1] for i in places],
            color=color,
            lw=2.4 if own else 1.2,
            ls="-" if own else "--",
            marker="o" if own else "s",
            markersize=6 if own else 4,
            capsize=2,
            label=lines[method],
        )
    axes.set_xticks(range(len(points)), [f"{100 * s:g} %" for s, _ in points])
    axes.set_ylim(95.0, 98.8)
    axes.set(xlabel="weights that are zero", ylabel="test accuracy [%]")
    axes.set_title("LeNet-300-100 on MNIST, five seeds (a random mask falls to 91 %)")
    axes.legend(loc="lower left", fontsize=9)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def draw_speed(folder, path):
    """Draw evaluations a second of pure evolution, ours beside others.

    Args:
        folder: Where the results are.
        path: File to write.
    """
    suites = json.loads((folder / "speed.json").read_text(encoding="utf-8"))["suites"]
    rows = suites["population"]["rows"]
    bars = []
    for begin, name, number in PEERS:
        # "full rank, over" begins no other case; peers that are missing have no row.
        found = [row[number] for row in rows if row["case"].startswith(begin)]
        bars += [(name, found[0])] if found else []
    figure, axes = _figure(2.6)
    names, values = zip(*bars)
    colors = [OWN if name.startswith("keras_es") else OTHER for name in names]
    axes.barh(range(len(bars)), values, color=colors)
    for place, value in enumerate(values):
        text = f" {value / 1e6:.2g} M" if value >= 1e5 else f" {value / 1e3:.2g} k"
        axes.annotate(text, (value, place), va="center")
    axes.set_yticks(range(len(bars)), names)
    axes.set_xscale("log")
    axes.set_xlim(1e4, 4e7)
    axes.set_xlabel("evaluations a second (a member on an example)")
    axes.set_title("Population of 128, MLP 784-128-10, 1,024 examples, two cores")
    figure.savefig(path, dpi=110)


def draw_compact(folder, path):
    """Draw what compaction leaves of files and latencies, network by network.

    Args:
        folder: Where the results are.
        path: File to write.
    """
    rows = json.loads((folder / "compact.json").read_text(encoding="utf-8"))["rows"]
    networks = {}
    for row in rows:
        name, form, batch = row["case"].split(", ")
        found = networks.setdefault(name, {})
        found["size of the file"] = row["detail"]["ratios"]["file_bytes"]
        found[f"latency, {form}, {batch}"] = 1.0 / row["detail"]["times_faster"]
    labels = list(dict.fromkeys(k for found in networks.values() for k in found))
    figure, axes = _figure(3.8, width=10)
    width = 0.84 / len(labels)
    for index, (color, label) in enumerate(zip(COLORS, labels)):
        known = [(i, f[label]) for i, f in enumerate(networks.values()) if label in f]
        places = [i + index * width for i, _ in known]
        bars = axes.bar(places, [v for _, v in known], width, label=label, color=color)
        axes.bar_label(bars, fmt="%.2f", fontsize=6.5)
    axes.axhline(1.0, color="black", lw=0.8)
    middle = 0.42 - width / 2
    axes.set_xticks([place + middle for place in range(len(networks))], networks)
    axes.set_ylim(0.0, 1.5)
    axes.set_ylabel("after / before")
    axes.set_title("Half of the channels removed (less is better)")
    axes.legend(fontsize=8, ncols=3, loc="upper center")
    figure.savefig(path, dpi=110)


PICTURES = {
    "front-accuracy.png": ("accuracy-mnist-lenet.jsonl", draw_accuracy),
    "front-speed.png": ("speed.json", draw_speed),
    "front-compact.png": ("compact.json", draw_compact),
}
"""Picture -> the results that it needs, and what draws it."""


def _figure(height, width=8):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def draw(folder, output):
    """Draw the pictures whose results are there; return their names.

    Args:
        folder: Where the results are.
        output: Folder to write to.
    """
    drawn = []
    for name, (needed, function) in PICTURES.items():
        if (folder / needed).exists():
            function(folder, output / name)
            drawn.append(name)
    return drawn


def main(argv=None):
    """Draw all pictures."""
    parser = make_parser("front", __doc__)
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=RESULTS,
        help="where pictures go; default: docs/results",
    )
    flags = parser.parse_args(argv)
    flags.output.mkdir(parents=True, exist_ok=True)
    for name in draw(RESULTS, flags.output):
        print(flags.output / name)


if __name__ == "__main__":
    sys.exit(stoppable("front", main))
