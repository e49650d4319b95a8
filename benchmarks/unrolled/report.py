"""What the tables and pictures of the suites share."""

import numpy as np

from benchmarks.picture import COLORS


def by_case(rows, order):
    """Return {case: rows} in a given order, without what has none."""
    found = {case: [r for r in rows if r["case"] == case] for case in order}
    return {case: mine for case, mine in found.items() if mine}


def spread(values, form="{:.4g}"):
    """Return the mean and, of several values, the standard deviation as text."""
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    mean = form.format(np.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {form.format(np.std(values, ddof=1))}"


def make_figure(columns, height=4.0):
    """Return a figure and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def colored(cases):
    """Pair the items of a dict with colours."""
    return zip(COLORS, cases.items())


def band(axes, curves, label, color):
    """Draw curves of several seeds: their mean, and thin lines for each."""
    length = min(len(c) for c in curves)
    points = np.array([c[:length] for c in curves], dtype=float)
    for each in points if len(points) > 1 else []:
        axes.plot(each[:, 0], each[:, 1], color=color, lw=0.4, alpha=0.5)
    mean = points.mean(axis=0)
    axes.plot(mean[:, 0], mean[:, 1], color=color, lw=1.8, label=label)
