"""Tables and pictures of the results."""

import math
import statistics

from benchmarks.forward import memory, paths
from benchmarks.picture import COLORS
from benchmarks.pure.report import mean_and_error
from benchmarks.timing import median_ratio

MIB = 2**20


def best_rates(rows):
    """Return which rate is best on held-out examples, by (suite, method, steps)."""
    return {group: max(known, key=known.get) for group, known in rates(rows).items()}


def rates(rows):
    """Return mean accuracies by rate, of each (suite, method, steps)."""
    found = {}
    for group, runs in _groups(rows).items():
        by_rate = {}
        for row in runs:
            by_rate.setdefault(row["config"]["rate"], []).append(row["accuracy"])
        found[group] = {rate: statistics.fmean(a) for rate, a in by_rate.items()}
    return found


def table(rows):
    """Return the lines of a Markdown table, one for each suite and method."""
    lines = [
        "| suite | method | rate | steps | seeds | test accuracy "
        "| below backpropagation | CPU seconds | peak MiB |",
        "|---" * 9 + "|",
    ]
    groups = _groups(_newest(rows))
    means = {g: statistics.fmean(r["accuracy"] for r in f) for g, f in groups.items()}
    for (suite, method, steps), found in groups.items():
        whole = means.get((suite, "backpropagation", steps), math.nan)
        below = 100 * (whole - means[suite, method, steps])
        peaks = [row["peak_mib"] for row in found if row["peak_mib"] is not None]
        cells = [
            suite,
            method,
            f"{found[0]['config']['rate']:g}",
            f"{steps:,}",
            str(len(found)),
            mean_and_error([row["accuracy"] for row in found]),
            "" if math.isnan(below) else f"{below:.1f} points",
            f"{statistics.fmean(row['cpu_seconds'] for row in found):.0f}",
            f"{statistics.fmean(peaks):,.0f}" if peaks else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def tuned(rows):
    """Return lines of what was tried, the best of each suite and method first."""
    lines = ["| suite | method | rate | held-out accuracy |", "|---|---|---|---|"]
    for (suite, method, _), found in _groups(rows).items():
        for row in sorted(found, key=lambda row: -row["accuracy"]):
            rate, accuracy = row["config"]["rate"], row["accuracy"]
            lines.append(f"| {suite} | {method} | {rate:g} | {accuracy:.4f} |")
    return lines


def measured(known):
    """Return lines of memory against depth, and of the steps of paths."""
    lines = ["| layers | weights | method | peak above the libraries | a later step "]
    lines[0] += "| beyond 3 times the weights | seconds |"
    lines.append("|---" * 7 + "|")
    for (method, depth), found in _memory(known).items():
        later = _later(found)
        # Beyond weights, direction and gradient.
        beyond = later - 3 * memory.weights(depth)
        parts = found["peak"] - found["base"], later, beyond
        cells = [depth, f"{memory.weights(depth) / MIB:,.0f}", method]
        cells += [f"{part / MIB:,.0f}" for part in parts]
        cells.append(f"{found['seconds']:.0f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += _fits(known) + _speed(known)
    lines += ["", "| function | gradient | steps to the minimum |", "|---|---|---|"]
    for name, found in known.items():
        if name.startswith("path, "):
            _, function, kind = name.split(", ")
            lines.append(f"| {function} | {kind} | {found[1]} |")
    return lines


def _later(found):
    """Return the bytes of a later step, NaN where the system cannot tell."""
    return (found["later"] or math.nan) - found["base"]


def _fits(known):
    lines = ["", "| layers | MiB that may be taken | method | trains | taken "]
    lines[1] += "| loss before each step |"
    lines.append("|---" * 6 + "|")
    for name, found in known.items():
        if name.startswith("limit "):
            limit, method, depth = name.removeprefix("limit ").split(", ")
            cells = [depth, limit, method, "no", "", ""]
            if found is not None:
                losses = ", ".join(f"{loss:.3g}" for loss in found["losses"])
                cells[3:] = ["yes", f"{found['taken'] / MIB:,.0f}", losses]
            lines.append("| " + " | ".join(cells) + " |")
    return lines if len(lines) > 3 else []


def _speed(known):
    if "speed" not in known:
        return []
    lines = ["", "| step of | CPU ms | times Keras | times Static |"]
    lines.append("|---|---|---|---|")
    seconds = known["speed"]
    for name, found in seconds.items():
        ratios = (median_ratio(seconds, name, case) for case in ("Keras", "Static"))
        cells = [f"{statistics.median(found):.1f}", *(f"{r:.2f}" for r in ratios)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _memory(known):
    found = {}
    for name, value in known.items():
        if name.startswith("memory, "):
            _, method, depth = name.split(", ")
            found[method, int(depth)] = value
    return found


def _groups(rows):
    found = {}
    for row in rows:
        group = row["suite"], row["method"], row["steps"]
        found.setdefault(group, []).append(row)
    return found


def _newest(rows):
    """Return the rows with the newest settings: others were tuned otherwise."""
    settings = {g: found[-1]["config"] for g, found in _groups(rows).items()}
    return [
        row
        for row in rows
        if row["config"] == settings[row["suite"], row["method"], row["steps"]]
    ]


def draw(rows, known, folder):
    """Draw accuracies, memory and paths, a picture each of what there is."""
    rows = _newest(rows)
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    if suites:
        _draw_runs(rows, suites, folder / "forward.png")
    if _memory(known):
        _draw_memory(known, folder / "forward-memory.png")
    if any(name.startswith("path, ") for name in known):
        _draw_paths(known, folder / "forward-paths.png")


def _draw_runs(rows, suites, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.8, 4.0 * len(suites)), layout="constrained")
    panels = figure.subplots(len(suites), 3, squeeze=False)
    for (steps, seconds, peaks), suite in zip(panels, suites):
        own = [row for row in rows if row["suite"] == suite]
        lengths = len({row["steps"] for row in own})
        for color, (group, runs) in zip(COLORS, _groups(own).items()):
            name = f"{group[1]}, {group[2]:,} steps" if lengths > 1 else group[1]
            for i, row in enumerate(runs):
                label, curve = None if i else name, row["curve"]
                accuracy = [100 * p["accuracy"] for p in curve]
                style = {"color": color, "lw": 1.2, "label": label}
                steps.plot([p["step"] for p in curve], accuracy, **style)
                seconds.plot([p["cpu_seconds"] for p in curve], accuracy, **style)
                if row["peak_mib"] is not None:
                    peaks.plot(
                        row["peak_mib"], accuracy[-1], "o", color=color, label=label
                    )
        steps.set_ylabel(f"{suite}: accuracy [%]")
        seconds.set_xscale("log")
        names = "steps", "CPU seconds", "peak of the process [MiB]"
        for axes, name in zip((steps, seconds, peaks), names):
            axes.set_xlabel(name)
            axes.grid(alpha=0.3)
        steps.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=110)


def _draw_memory(known, path):
    from matplotlib.figure import Figure

    found = _memory(known)
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    whole, step = figure.subplots(1, 2)
    for color, method in zip(COLORS, dict.fromkeys(m for m, _ in found)):
        depths = sorted(d for m, d in found if m == method)
        own = [found[method, d] for d in depths]
        peaks = [(f["peak"] - f["base"]) / 2**30 for f in own]
        whole.plot(depths, peaks, "o-", color=color, label=method)
        later = [_later(f) / 2**30 for f in own]
        step.plot(depths, later, "o-", color=color, label=method)
    depths = sorted({d for _, d in found})
    weights = [memory.weights(d) / 2**30 for d in depths]
    whole.set_title("peak of the process above the libraries")
    step.set_title("of a later step")
    for axes in (whole, step):
        axes.plot(depths, weights, "--", color="#666666", label="the weights alone")
        axes.set_xscale("log")
        axes.set_xticks(depths, map(str, depths))
        axes.minorticks_off()
        axes.set_yscale("log")
        axes.set_xlabel("layers of 1,024 units, batch 4,096")
        axes.set_ylabel("GiB")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def _draw_paths(known, path):
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), paths.FUNCTIONS):
        x, y = np.meshgrid(np.linspace(-1.5, 3.5, 200), np.linspace(-1.0, 2.0, 200))
        levels = np.log10(paths.value(name, np.stack([x, y])) + 1e-3)
        axes.contour(x, y, levels, 20, colors="#cccccc", linewidths=0.6)
        for color, kind in zip(COLORS, paths.KINDS):
            if f"path, {name}, {kind}" in known:
                points = np.array(known[f"path, {name}, {kind}"][0])
                axes.plot(*points.T, "-", color=color, lw=1.2, label=kind)
        axes.plot(*paths.FUNCTIONS[name][1], "k*")
        axes.set_title(name)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
