"""Tables and pictures of all that is known, from the JSON lines."""

import json
from pathlib import Path

import numpy as np

from benchmarks.accuracy.results import mean_and_standard_error
from benchmarks.lottery.suites import NAMES
from benchmarks.picture import COLORS, make_panels

SHOWN = (0, 5, 10, 13, 15, 17, 19, 20)
"""Rounds in tables of more than twelve; pictures have all."""

COMPARED = (
    ("es, snr", "es, magnitude"), ("es, snr", "es, final"),
    ("es, snr", "es, reinitialized"), ("es, snr", "es, layerwise_random"),
    ("es, snr", "es, random"), ("es, magnitude", "es, random"),
    ("es, snr", "gradient, magnitude"),
)  # fmt: skip
"""What is compared seed by seed: the same first values, the same order of the data."""


def tables(rows):
    """Return the lines of all tables."""
    found = []
    for title, group in _groups(_plain(rows)).items():
        found += [f"### {title}: test accuracy", "", *_by_round(group), ""]
        found += _differences(group)
    found += _transfers([r for r in rows if "transfer_to" in r["case"]])
    found += _optima([r for r in rows if "measured" in r["case"]])
    return found


def _plain(rows):
    """Return the rows of tickets and controls."""
    others = {"transfer_to", "measured"}
    return [row for row in rows if not others & set(row["case"])]


def _groups(rows):
    """Return rows by suite, data and share that a round keeps."""
    groups = {}
    for row in rows:
        case = row["case"]
        title = f"{case['suite']}, {case['dataset']}, {case['keep']:.0%} kept a round"
        groups.setdefault(title, []).append(row)
    return groups


def methods(rows):
    """Return {(kind, score, steps): {round: accuracies, one for each seed}}."""
    found = {}
    for row in rows:
        case = row["case"]
        method = case["kind"], case["score"], case["steps"]
        by_round = found.setdefault(method, {})
        by_round.setdefault(row["round"], []).append(row["accuracy"])
    return found


def _head(rows, first=0):
    """Return the rounds that are shown, from one on, and the head of their table."""
    densities = {row["round"]: row["density"] for row in rows}
    shown = sorted(r for r in densities if r >= first)
    if len(shown) > 12:
        shown = [r for r in SHOWN if r in densities]
    head = [f"{densities[r]:.2%}" for r in shown]
    lines = ["| weights left | " + " | ".join(head) + " |"]
    return shown, [*lines, "|---|" + "---|" * len(shown)]


def _by_round(rows):
    shown, lines = _head(rows)
    for method, by_round in methods(rows).items():
        cells = [_cell(by_round.get(r)) for r in shown]
        lines.append(f"| {_label(*method)} | " + " | ".join(cells) + " |")
    return lines


def _label(kind, score, steps):
    return f"{kind}, {score} ({steps:,} steps)"


def _cell(values, sign=""):
    if not values:
        return ""
    mean, error = mean_and_standard_error(values)
    return f"{mean:{sign}.4f}" + (f" ± {error:.4f}" if len(values) > 1 else "")


def _differences(rows):
    """Return the table of differences, their standard errors over pairs of a seed."""
    by_seed = {}
    for row in rows:
        case = row["case"]
        name = f"{case['kind']}, {case['score']}"
        by_seed.setdefault((name, row["round"]), {})[case["seed"]] = row["accuracy"]
    shown, lines = _head(rows, 1)
    for first, second in COMPARED:
        found = []
        for r in shown:
            a, b = (by_seed.get((name, r), {}) for name in (first, second))
            found.append([a[seed] - b[seed] for seed in a if seed in b])
        if any(found):
            cells = [_cell(values, "+") for values in found]
            lines.append(f"| {first} − {second} | {' | '.join(cells)} |")
    if len(lines) == 2:
        return []
    return ["Differences, seed by seed:", "", *lines, ""]


def _transfers(rows):
    if not rows:
        return []
    groups = {}
    for row in rows:
        case = row["case"]
        found_on = f"{case['suite']}, {case['dataset']}, {row['density']:.1%}"
        key = found_on, case["kind"], case["transfer_to"]
        groups.setdefault(key, {}).setdefault(case["score"], []).append(row["accuracy"])
    lines = ["### Transfer", "", "| found on, by es | trained on | by | snr | random |"]
    lines.append("|---|---|---|---|---|")
    for (found_on, kind, to), scores in sorted(groups.items()):
        cells = [_cell(scores.get(score)) for score in ("snr", "random")]
        lines.append(f"| {found_on} | {to} | {kind} | {' | '.join(cells)} |")
    return [*lines, ""]


def _optima(rows):
    if not rows:
        return []
    lines = ["### Optima", "", "| | left | seeds | barrier | largest eigenvalue |"]
    lines.append("|---|---|---|---|---|")
    groups = {}
    for row in rows:
        case = {k: v for k, v in row["case"].items() if k != "seed"}
        left = case["keep"] ** row["round"]
        groups.setdefault((json.dumps(case), left), []).append(row)
    for (case, left), group in groups.items():
        case = json.loads(case)
        name = f"{case['dataset']}, {case['kind']}, {case['measured']}"
        cells = [
            _cell([r[key] for r in group if key in r])
            for key in ("barrier", "eigenvalue")
        ]
        lines.append(f"| {name} | {left:.1%} | {len(group)} | {' | '.join(cells)} |")
    return [*lines, ""]


def draw(rows, output):
    """Draw accuracy over density, and lines between optima, into a folder."""
    groups = _groups(_plain(rows))
    if not groups:
        return
    from matplotlib.figure import Figure

    lines = _groups([r for r in rows if "line" in r["case"].get("measured", "")])
    count = len(groups) + len(lines)
    figure = Figure(figsize=(11, 4.2 * -(-count // 2)), layout="constrained")
    panels = list(make_panels(figure, count, 2 if count > 1 else 1))
    for axes, (title, group) in zip(panels, groups.items()):
        _draw_rounds(axes, title, group)
    for axes, (title, group) in zip(panels[len(groups) :], lines.items()):
        _draw_lines(axes, title, group)
    figure.savefig(Path(output) / "lottery.png", dpi=110)


def _draw_lines(axes, title, rows):
    """Draw the lines of the first seed and two of its rounds; gradients are dashed."""
    first = min(row["case"]["seed"] for row in rows)
    rounds = sorted({row["round"] for row in rows})
    rounds = {rounds[0], rounds[len(rounds) // 2]}
    rows = [r for r in rows if r["case"]["seed"] == first and r["round"] in rounds]
    kinds = sorted({(row["round"], row["case"]["measured"]) for row in rows})
    colors = dict(zip(kinds, COLORS * len(kinds)))
    for row in rows:
        case = row["case"]
        label = f"{case['kind']}, {case['keep'] ** row['round']:.0%}, "
        axes.plot(
            row["positions"], row["losses"], "-" if case["kind"] == "es" else "--",
            color=colors[row["round"], case["measured"]],
            label=label + case["measured"],
        )  # fmt: skip
    axes.set(xlabel="from one optimum to the other", ylabel="training loss")
    axes.set_title(title, y=1.0, pad=52)
    # Above: lines rise anywhere.
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 2}
    axes.legend(fontsize=7, frameon=False, **above)


def _draw_rounds(axes, title, rows):
    densities = {row["round"]: 100 * row["density"] for row in rows}
    for (kind, score, steps), by_round in methods(rows).items():
        found = sorted(by_round)
        means, errors = zip(*(mean_and_standard_error(by_round[r]) for r in found))
        x = [densities[r] for r in found]
        errors = np.nan_to_num(errors)  # there is none of one seed
        axes.errorbar(
            x, means, errors, fmt="o-" if kind == "es" else "o--",
            color=COLORS[NAMES.index(score)], label=_label(kind, score, steps), ms=3,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set(title=title, xlabel="weights left [%]", ylabel="test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
