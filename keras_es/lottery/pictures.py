"""Pictures of tickets: accuracy over sparsity, the loss between and around optima."""

from typing import Any

from keras_es.lottery.connectivity import Connectivity
from keras_es.lottery.flatness import Flatness
from keras_es.lottery.ticket import Ticket
from keras_es.plots import check_axes

COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
"""That people with colour-blindness can tell apart (Okabe and Ito)."""


def plot_rounds(axes: Any, tickets: dict[str, Any], name: str = "val_accuracy") -> None:
    """Draw a quantity over the density of tickets, sparser to the right.

    Args:
        axes: Matplotlib axes.
        tickets: Dict from label to a `Ticket`, or to a list of the dicts that a
            `history` has.
        name: Key of the history.

    Raises:
        ValueError: If there is no ticket with such a quantity.
    """
    for color, label, ticket in _colored(axes, "tickets", tickets, (Ticket, list)):
        history = ticket.history if isinstance(ticket, Ticket) else ticket
        if not all(isinstance(row, dict) and "density" in row for row in history):
            raise ValueError(
                "`tickets` must hold tickets or lists of the dicts of a `history`, "
                f"each with a `density`. Received: tickets[{label!r}]={history!r:.200}"
            )
        points = [(row["density"], row[name]) for row in history if name in row]
        if not points:
            raise ValueError(
                f"`name` must be a key of the history of {label!r}. "
                f"Received: name={name!r}"
            )
        x, y = zip(*sorted(points, reverse=True))
        axes.plot([100 * d for d in x], y, "o-", color=color, label=label, markersize=3)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("weights left [%]")
    axes.set_ylabel(name.replace("_", " "))
    _finish(axes)


def plot_connectivity(axes: Any, lines: dict[str, Connectivity]) -> None:
    """Draw the loss along the line between two models.

    Args:
        axes: Matplotlib axes.
        lines: Dict from label to what `connectivity` returned.

    Raises:
        ValueError: If there is none.
    """
    for color, label, line in _colored(axes, "lines", lines, Connectivity):
        text = f"{label}: barrier {line.barrier:.3g}"
        axes.plot(line.positions, line.losses, "o-", color=color, label=text,
                  markersize=3)  # fmt: skip
    axes.set_xlabel("from the first model to the second")
    axes.set_ylabel("loss")
    _finish(axes)


def plot_flatness(axes: Any, found: dict[str, Flatness]) -> None:
    """Draw the loss under noise of growing scale.

    Args:
        axes: Matplotlib axes.
        found: Dict from label to what `flatness` returned.

    Raises:
        ValueError: If there is none.
    """
    for color, label, one in _colored(axes, "found", found, Flatness):
        text = f"{label}: largest eigenvalue {one.eigenvalue:.3g}"
        axes.errorbar(
            one.scales, one.losses, one.stds, color=color, label=text, marker="o",
            markersize=3, capsize=2,
        )  # fmt: skip
    axes.set_xlabel("noise, in norms of each weight")
    axes.set_ylabel("loss")
    _finish(axes)


def _colored(axes, name, values, classes):
    """Return [(color, label, value)] of what is drawn, or refuse it."""
    check_axes(axes)
    fits = isinstance(values, dict) and values
    if not fits or not all(isinstance(v, classes) for v in values.values()):
        raise ValueError(
            f"`{name}` must be a dict from label to what is drawn, not empty. "
            f"Received: {name}={values!r}"
        )
    return [(c, *item) for c, item in zip(COLORS * len(values), values.items())]


def _finish(axes):
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
