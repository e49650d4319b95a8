"""Who is ahead: medians and rank tests, the table, the picture."""

import statistics

from benchmarks.picture import lines_of, make_panels

SOLVED = 1e-8
"""Values below count as this one: the target of the COCO platform."""

LEVEL = 0.05
"""Of the rank tests."""

TICKS = (0.1, 0.3, 1, 3)
"""Of the picture's ratios."""

PANELS = 5
"""Side by side in the picture, at most."""


def compared(row):
    """Return a row with its comparison added.

    Args:
        row: Dict with "ours" and "theirs", the best values of all seeds.

    Returns:
        The row with the medians, "ahead": our median is no larger, and what one-sided
        rank tests (Mann-Whitney) say: "no_worse": ours are not found larger; "better":
        they are found smaller.
    """
    from scipy import stats

    ours, theirs = ([max(v, SOLVED) for v in row[k]] for k in ("ours", "theirs"))
    larger, smaller = (
        float(stats.mannwhitneyu(ours, theirs, alternative=side).pvalue)
        for side in ("greater", "less")
    )
    medians = statistics.median(ours), statistics.median(theirs)
    return {
        **row,
        "median_ours": medians[0],
        "median_theirs": medians[1],
        "p_worse": larger,
        "ahead": medians[0] <= medians[1],
        "no_worse": larger >= LEVEL,
        "better": smaller < LEVEL,
    }


def groups(rows):
    """Return {(algorithm, dimensions): rows}, in their order."""
    found = {}
    for row in rows:
        found.setdefault((row["algorithm"], row["dimensions"]), []).append(row)
    return found


def summary(rows):
    """Return the lines of a Markdown table: how many functions, by algorithm."""
    lines = [
        "| algorithm | dimensions | median no larger | no worse by rank test "
        "| better by rank test |",
        "|---|---|---|---|---|",
    ]
    for (algorithm, dimensions), found in groups(rows).items():
        counts = [
            sum(row[name] for row in found) for name in ("ahead", "no_worse", "better")
        ]
        cells = " | ".join(f"{n} of {len(found)}" for n in counts)
        lines.append(f"| `{algorithm}` | {dimensions} | {cells} |")
    return lines


def table(rows):
    """Return the lines of a table of the medians, ours and theirs."""
    lines = []
    for (algorithm, dimensions), found in groups(rows).items():
        lines += ["", f"{algorithm}, {dimensions} dimensions", ""]
        for row in found:
            marks = "" if row["ahead"] else "larger median"
            marks += "" if row["no_worse"] else f", p = {row['p_worse']:.3f}"
            lines.append(
                f"{row['function']:>24} {row['median_ours']:>12.4g} "
                f"{row['median_theirs']:>12.4g}  {marks}"
            )
    return lines


def draw(rows, path):
    """Draw our median over theirs for each function, a panel for each algorithm."""
    from matplotlib.figure import Figure

    found = groups(rows)
    names = list(dict.fromkeys(name for name, _ in found))
    sizes = list(dict.fromkeys(size for _, size in found))
    functions = list(dict.fromkeys(row["function"] for row in rows))
    lines = lines_of(len(names), PANELS)
    columns = -(-len(names) // lines)  # as many in each line
    figure = Figure(figsize=(2.3 + 1.9 * columns, 6.2 * lines), layout="constrained")
    panels = make_panels(figure, len(names), columns, sharex=True, sharey=True)
    for axes, name in zip(panels, names):
        axes.axvline(1.0, color="#999999", lw=1)
        for size, color, marker in zip(sizes, ("#0072B2", "#D55E00"), "os"):
            mine = found.get((name, size), [])
            axes.plot(
                [max(r["median_ours"] / r["median_theirs"], TICKS[0]) for r in mine],
                [functions.index(row["function"]) for row in mine],
                marker, color=color, ms=5, alpha=0.8, label=f"{size} dimensions",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(0.9 * TICKS[0], 1.1 * TICKS[-1])
        axes.tick_params("y", labelsize=8)
        axes.set_xticks(TICKS, [f"{x:g}" for x in TICKS])
        axes.minorticks_off()
        axes.set_title(name.replace(", ", ",\n"), fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_yticks(range(len(functions)), functions)
    panels[0].invert_yaxis()
    figure.supxlabel(
        f"our median / evosax's (left is better; {TICKS[0]}: that or less)"
    )
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower right", fontsize=9)
    figure.savefig(path, dpi=110)
