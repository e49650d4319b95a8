"""The table and the picture of the results."""

import statistics

from benchmarks.accuracy.results import mean_and_standard_error
from benchmarks.picture import COLORS, lines_of, make_panels

COLUMNS = 3
"""Panels side by side."""


def table(rows, targets):
    """Return the lines of a Markdown table, one for each suite and method.

    Args:
        rows: Results on the test set.
        targets: Dict from suite to the accuracy that is wanted, or None.
    """
    lines = [
        "| suite | strategy | weights | members x examples | generations | seeds "
        "| test accuracy | target | minutes (CPU) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (suite, method, _), found in groups(rows).items():
        first, target = found[0], targets.get(suite)
        config = first["config"]
        cells = [
            suite,
            method,
            f"{first['weights']:,}",
            f"{config['population']} x {_examples(config)}",
            f"{first['steps']:,}",
            str(len(found)),
            mean_and_error([row["accuracy"] for row in found]),
            "" if target is None else f"{target:g}",
            f"{_minutes(found, 'seconds'):.1f} ({_minutes(found, 'cpu_seconds'):.1f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def tuned(rows, suites):
    """Return lines of what was tried, the best of each suite and method first.

    Args:
        rows: Results on the validation split.
        suites: Names of suites.
    """
    lines = ["| suite | method | accuracy | minutes (CPU) | generations | settings |"]
    lines.append("|---|---|---|---|---|---|")
    by_method = _grouped(rows, lambda row: (row["suite"], row["method"]))
    for (suite, method), found in by_method.items():
        for row in sorted(found, key=lambda row: -row["accuracy"]):
            if suite in suites:
                minutes = f"{row['seconds'] / 60:.1f} ({row['cpu_seconds'] / 60:.1f})"
                lines.append(
                    f"| {suite} | {method} | {row['accuracy']:.4f} | {minutes} "
                    f"| {row['steps']} | {row['config']} |"
                )
    return lines


def _evaluated(config):
    """Return how many million examples a generation evaluates."""
    batch, sampled = config["batch_size"], config.get("sampled_examples")
    if sampled is None:
        return 1e-6 * config["population"] * batch
    return 1e-6 * (config["population"] * sampled + batch)  # the mean sees all


def _examples(config):
    """Return how many examples a member sees: of how many, if they are sampled."""
    batch, sampled = config["batch_size"], config.get("sampled_examples")
    return f"{batch}" if sampled is None else f"{sampled} of {batch:,}"


def mean_and_error(values):
    """Return "mean ± standard error", the error only where it is known."""
    mean, error = mean_and_standard_error(values)
    return f"{mean:.4f}" if len(values) < 2 else f"{mean:.4f} ± {error:.4f}"


def _minutes(rows, name):
    return statistics.fmean(row[name] for row in rows) / 60


def groups(rows):
    """Return {(suite, method and where its noise is, members): rows}."""

    def line(row):
        outputs = row["config"].get("output_sigma") is not None
        method = row["method"] + (", noise on outputs" if outputs else "")
        return row["suite"], method, row["config"]["population"]

    return _grouped(rows, line)


def _grouped(rows, line):
    found = {}
    for row in rows:
        found.setdefault(line(row), []).append(row)
    return found


def draw(rows, targets, path):
    """Draw the curves of all runs, a panel for each suite."""
    from matplotlib.figure import Figure

    suites = list(dict.fromkeys(row["suite"] for row in rows))
    lines = lines_of(len(suites), COLUMNS)
    figure = Figure(figsize=(4.6 * COLUMNS, 4.0 * lines), layout="constrained")
    panels = make_panels(figure, len(suites), COLUMNS)
    for axes, suite in zip(panels, suites):
        found = groups([row for row in rows if row["suite"] == suite])
        for color, ((_, method, members), runs) in zip(COLORS, found.items()):
            for i, row in enumerate(runs):
                points = row["curve"]
                axes.plot(
                    [p["generation"] * _evaluated(row["config"]) for p in points],
                    [100 * p["accuracy"] for p in points],
                    color=color, lw=1.2, label=None if i else f"{method}, {members}",
                )  # fmt: skip
        if targets.get(suite) is not None:
            axes.axhline(100 * targets[suite], color="#666666", ls="--", lw=1)
        axes.set_title(suite)
        axes.set_xlabel("million evaluated examples, all members together")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=9)
        axes.set_ylabel("held-out accuracy [%]")
    figure.savefig(path, dpi=110)
