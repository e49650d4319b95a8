"""The picture of a table: bars of ratios against their targets, and curves."""

MET, MISSED, NO_TARGET = "#009E73", "#D55E00", "#999999"
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D",
    "#8C564B", "#666666", "#000000",
)  # fmt: skip
"""Of lines, the first ones the easiest to tell apart, also for the colour-blind."""

COLUMNS = 2


def lines_of(count, columns):
    """Return how many lines of so many columns hold a number of panels."""
    return -(-count // columns)


def make_panels(figure, count, columns, **kwargs):
    """Return the axes of panels, line by line; the last line may hold fewer.

    Args:
        figure: Matplotlib figure.
        count: Number of panels.
        columns: Panels side by side.
        **kwargs: See `Figure.subplots`.
    """
    lines = lines_of(count, columns)
    panels = figure.subplots(lines, columns, squeeze=False, **kwargs).flatten()
    for axes in panels[count:]:
        axes.set_visible(False)
    return panels[:count]


def draw(rows, path):
    """Draw rows into a file.

    Args:
        rows: List of `benchmarks.timing.Row`. Those with `detail["curve"]` are
            points of that curve, at `detail["x"]`; a curve's name is
            "quantity against x" or "quantity against x: label", one panel for what
            stands before the colon.
        path: File to write, its suffix names the format.
    """
    from matplotlib.figure import Figure

    bars, panels = _panels(rows)
    lines = lines_of(len(panels), COLUMNS)
    heights = [0.6 + 0.2 * len(bars), 0.1 + 2.8 * lines]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    # Parts of their own: the long names of the bars must not make the curves narrow.
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    if bars:
        _draw_bars(upper, bars)
    _draw_panels(lower, panels)
    figure.savefig(path, dpi=110)


def _panels(rows):
    bars, panels = [], {}
    for row in rows:
        curve = row.detail.get("curve")
        if curve is not None:
            title, _, label = curve.partition(": ")
            curves = panels.setdefault(f"{title} [{row.unit}]", {})
            curves.setdefault(label, []).append((row.detail["x"], row.value))
        elif row.ratio is not None or row.target is not None:
            bars.append(row)
    return bars, panels


def _draw_panels(figure, panels):
    lines = lines_of(len(panels), COLUMNS)
    for i, (title, curves) in enumerate(panels.items()):
        _draw_curves(figure.add_subplot(lines, COLUMNS, i + 1), title, curves)


def _draw_bars(figure, rows):
    axes = figure.subplots()
    numbers = [row.value if row.ratio is None else row.ratio for row in rows]
    colors = [{None: NO_TARGET, True: MET, False: MISSED}[row.met] for row in rows]
    places = range(len(rows))
    axes.barh(places, numbers, color=colors)
    for place, row, number in zip(places, rows, numbers):
        axes.annotate(
            f" {number:.3g}" + (f"  ({row.target})" if row.target else ""),
            (number, place),
            va="center",
            fontsize=8,
        )
        if row.target:
            bound = row.bound[1]
            axes.plot([bound, bound], [place - 0.45, place + 0.45], color="black")
    axes.set_yticks(places, [f"{r.suite}: {r.case}" for r in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.005)
    axes.set_title("Ratio, with its target (black line); orange: missed", fontsize=10)


def _draw_curves(axes, title, curves):
    for color, (label, points) in zip(COLORS * len(curves), curves.items()):
        x, y = zip(*sorted(points))
        axes.plot(x, y, "o-", color=color, label=label or None, markersize=4)
    axes.set(xscale="log", yscale="log")
    axes.set_title(title, fontsize=10)
    if any(curves):
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
