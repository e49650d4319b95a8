"""The table and the picture of a suite."""

import math

from benchmarks.accuracy.methods import NAMES
from benchmarks.accuracy.results import mean_and_standard_error
from benchmarks.picture import COLORS

MARKERS = "osD^vP*X<>"


def summary(rows):
    """Return {(pattern, sparsity): {method: (mean, standard error, number)}}.

    The standard error is s / sqrt(n) with s the sample standard deviation over seeds,
    NaN for one seed.
    """
    groups = {}
    for row in rows:
        case = (row["pattern"], row["wanted_sparsity"])
        found = groups.setdefault(case, {}).setdefault(row["method"], [])
        found.append(row["accuracy"])
    return {
        case: {
            method: (*mean_and_standard_error(values), len(values))
            for method, values in found.items()
        }
        for case, found in groups.items()
    }


def table(rows):
    """Return the lines of a Markdown table: accuracy in percent by case and method."""
    cases = summary(rows)
    shown = [m for m in NAMES if any(m in found for found in cases.values())]
    lines = [
        "| | " + " | ".join(f"`{m}`" for m in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for (pattern, sparsity), found in cases.items():
        name = pattern if pattern == "dense" else f"{pattern}, {100 * sparsity:g} %"
        cells = [_cell(found.get(method)) for method in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def ahead(rows, first):
    """Return the lines of a table: one method against the best of the others.

    The standard error of a difference is sqrt(a**2 + b**2), a and b those of the two.

    Args:
        rows: Results.
        first: Name of the method.
    """
    cases = summary(rows)
    lines = [f"| | `{first}` | best of the others | ahead by |", "|---" * 4 + "|"]
    for (pattern, sparsity), found in cases.items():
        others = [m for m in found if m not in (first, "dense")]
        if first not in found or not others:
            continue
        best = max(others, key=lambda m: found[m][0])
        difference = found[first][0] - found[best][0]
        error = math.hypot(found[first][1], found[best][1])
        fewest = min(found[first][2], found[best][2])  # of one seed: no error is known
        lines.append(
            f"| {pattern}, {100 * sparsity:g} % | {_cell(found[first])} | "
            f"`{best}`, {_cell(found[best])} | {_cell((difference, error, fewest))} |"
        )
    return lines if len(lines) > 2 else []


def _cell(value):
    if value is None:
        return ""
    mean, error, count = value
    if count == 1:
        return f"{100 * mean:.2f} (1 seed)"
    return f"{100 * mean:.2f} ± {100 * error:.2f}"


def draw(rows, title, path):
    """Draw accuracy over sparsity, one panel for each pattern, into a file."""
    from matplotlib.figure import Figure

    cases = summary(rows)
    labels = list(dict.fromkeys(p for p, _ in cases if p != "dense"))
    figure = Figure(figsize=(3.2 + 4.2 * len(labels), 4.8), layout="constrained")
    panels = figure.subplots(1, max(1, len(labels)), squeeze=False, sharey=True)[0]
    for axes, label in zip(panels, labels):
        points = sorted((s, found) for (p, s), found in cases.items() if p == label)
        _panel(axes, label, points, cases.get(("dense", 0.0), {}).get("dense"))
    panels[0].set_ylabel("test accuracy [%], mean and standard error")
    handles = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(name, handle)
    order = [name for name in NAMES if name in handles]
    figure.legend(
        [handles[n] for n in order], order, loc="outside right upper", fontsize=9
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _panel(axes, label, points, dense):
    if dense is not None:
        axes.axhline(100 * dense[0], color=COLORS[-1], ls="--", lw=1, label="dense")
    shown = [m for m in NAMES if any(m in found for _, found in points)]
    for i, method in enumerate(shown):
        # Side by side, for error bars of equal methods would cover each other.
        shift = 0.05 * (i - (len(shown) - 1) / 2)
        known = [(x, f[method]) for x, (_, f) in enumerate(points) if method in f]
        style = NAMES.index(method)
        axes.errorbar(
            [x + shift for x, _ in known],
            [100 * mean for _, (mean, _, _) in known],
            [0.0 if math.isnan(error) else 100 * error for _, (_, error, _) in known],
            color=COLORS[style % len(COLORS)],
            # Others where colors begin anew: the two lists are as long.
            marker=MARKERS[(style + style // len(COLORS)) % len(MARKERS)],
            ls=("-", ":", "-.")[style // len(COLORS) % 3],
            markersize=5,
            lw=1,
            capsize=2,
            label=method,
        )
    axes.set_xticks(range(len(points)), [f"{100 * s:g} %" for s, _ in points])
    axes.set_xlim(-0.5, len(points) - 0.5)
    axes.set(title=label, xlabel="sparsity")
    axes.grid(alpha=0.3)
