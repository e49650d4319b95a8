"""Pictures of masks and runs, drawn without a display.

Matplotlib loads on first use.
"""

import functools
import math

import numpy as np

from keras_es._arguments import integer, is_integer, is_number, optional, text

__all__ = ["mask_picture", "plot_curves", "plot_mask", "plot_sparsity", "run_report"]

# A palette that people with colour-blindness can tell apart (Okabe and Ito).
TRAIN, TEST, BAR = "#0072B2", "#D55E00", "#009E73"
LABELS = {
    "mask_flip_ratio": "Share of mask entries flipped in a step",
    "population_spread": "Spread of the population's losses",
}


def mask_picture(mask, max_side=256):
    """Turn the mask of a kernel into a picture of bounded size.

    The kernel is seen as a matrix of flattened inputs (rows) and outputs (columns).
    Larger matrices are averaged over equal parts, so that pixels are densities.

    Args:
        mask: Array of the kernel's shape, boolean or numbers in [0, 1].
        max_side: Largest height and width, at least 1.

    Returns:
        Float array [height, width] in [0, 1].

    Example:

    >>> keras_es.plots.mask_picture(np.eye(4), max_side=2)
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    max_side = integer(1)("max_side", max_side)
    matrix = _numbers("mask", mask)
    matrix = matrix.reshape(-1, matrix.shape[-1] if matrix.ndim > 1 else 1)
    for axis in (0, 1):
        size = matrix.shape[axis]
        if size > max_side:
            starts = np.arange(max_side) * size // max_side
            lengths = np.diff(np.append(starts, size))
            sums = np.add.reduceat(matrix, starts, axis=axis)
            matrix = sums / np.expand_dims(lengths, 1 - axis)
    return matrix


def plot_mask(axes, mask, title):
    """Draw a mask; dark is kept, light is masked out.

    Args:
        axes: Matplotlib axes.
        mask: Array of the kernel's shape.
        title: Text above.
    """
    picture = mask_picture(mask)
    check_axes(axes)
    axes.imshow(
        picture,
        cmap="Greys",
        vmin=0.0,
        vmax=max(picture.max(), 1e-12),
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("outputs", fontsize=8)
    axes.set_ylabel("inputs", fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def plot_curves(axes, history, name, title=None):
    """Draw one quantity over the epochs, of training and of validation.

    Args:
        axes: Matplotlib axes.
        history: What `model.fit` returned, or a list of the logs of each epoch.
        name: Key of the logs; `val_` + name is drawn as well if it is there.
        title: Text above; by default the name.
    """
    check_axes(axes)
    history = _epochs(history)
    name, title = text("name", name), optional(text)("title", title)
    for key, label, color in ((name, "training", TRAIN), (f"val_{name}", "test", TEST)):
        points = [
            (row.get("epoch", i + 1), row[key])
            for i, row in enumerate(history)
            if row.get(key) is not None
        ]
        if points:
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) == 1 else None
            axes.plot(epochs, values, color=color, label=label, marker=marker)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.set_title(title or name.replace("_", " ").capitalize(), fontsize=10)
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def plot_sparsity(axes, names, sparsities, counts):
    """Draw the sparsity of each weight as a bar with its number of non-zeros.

    Args:
        axes: Matplotlib axes.
        names: Names of the weights.
        sparsities: Their sparsities, in [0, 1].
        counts: Their numbers of non-zeros.
    """
    check_axes(axes)
    columns = {"names": names, "sparsities": sparsities, "counts": counts}
    for argument, values in columns.items():
        _check_column(argument, values, names)
    rows = np.arange(len(names))
    axes.barh(rows, sparsities, color=BAR)
    for row, sparsity, count in zip(rows, sparsities, counts, strict=True):
        inside = sparsity > 0.5
        axes.text(
            sparsity - 0.02 if inside else sparsity + 0.02,
            row,
            f"{sparsity:.1%}, {count:,} left",
            ha="right" if inside else "left",
            va="center",
            fontsize=8,
            color="white" if inside else "black",
        )
    axes.set_yticks(rows, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_title("Sparsity", fontsize=10)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def run_report(history, masks, title, input_shape=None, pictures=None):
    """Draw a run: curves above, sparsity by weight and the masks below.

    Args:
        history: What `model.fit` returned, or a list of the logs of each epoch.
        masks: Dict from names of weights to arrays of zeros and ones; may be empty.
        title: Text above all; may have several lines.
        input_shape: Shape (height, width, channels) of the images. If it is given and
            the first weight has one row for each of their values, the report shows how
            many connections each pixel has kept.
        pictures: Dict from captions to arrays [time, bands], such as spectrograms,
            which are drawn below with the first band at the bottom; None for none.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Example:

    >>> history = [{"loss": 1.0, "val_loss": 1.1}, {"loss": 0.5, "val_loss": 0.8}]
    >>> figure = keras_es.plots.run_report(history, {"dense/kernel": np.eye(4)}, "Run")
    >>> len(figure.axes)
    3
    """
    # Figure instead of pyplot: no global state, no backend, no window.
    from matplotlib.figure import Figure

    history = _epochs(history)
    masks = _checked_masks(masks)
    if input_shape is not None:
        _check_shape(input_shape)
    curves = _curve_names(history)
    panels = _mask_panels(masks, input_shape) + _picture_panels(pictures)
    columns = max(3, len(curves))
    rows = 1 + math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows + 0.6), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    for column, name in enumerate(curves):
        axes = figure.add_subplot(grid[0, column])
        plot_curves(axes, history, name, LABELS.get(name))
    for i, draw in enumerate(panels):
        draw(figure.add_subplot(grid[1 + i // columns, i % columns]))
    figure.suptitle(title, fontsize=11)
    return figure


def _curve_names(history):
    """Name the logs worth a curve, the usual ones first."""
    wanted = (
        "loss", "accuracy", "bits", "mel_error", "duration_error", "mask_flip_ratio",
        "population_spread",
    )  # fmt: skip
    return [name for name in wanted if any(name in row for row in history)] or ["loss"]


def _picture_panels(pictures):
    """Make the functions that each draw a picture; all have one scale of colours."""
    if pictures is None:
        return []
    if not isinstance(pictures, dict):
        raise ValueError(
            "`pictures` must be a dict from captions to arrays. "
            f"Received: pictures={pictures!r}"
        )
    arrays = {text("caption", k): _numbers(k, v) for k, v in pictures.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or not array.size:
            raise ValueError(
                "a picture must have two axes, time and bands, and none may be empty. "
                f"Received: {name!r} of shape {array.shape}"
            )
    lowest = min((a.min() for a in arrays.values()), default=0.0)
    highest = max((a.max() for a in arrays.values()), default=1.0)

    def draw(axes, name, array):
        axes.imshow(
            array.T, origin="lower", aspect="auto", vmin=lowest, vmax=highest,
            interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("frame", fontsize=8)
        axes.tick_params(labelsize=8)

    return [functools.partial(draw, name=n, array=a) for n, a in arrays.items()]


def _mask_panels(masks, input_shape, most=8):
    """Make the functions that each draw one of the lower panels."""
    if not masks:
        return []
    names = list(masks)
    counts = [int(np.count_nonzero(mask)) for mask in masks.values()]
    sparsities = [
        1 - count / mask.size
        for count, mask in zip(counts, masks.values(), strict=True)
    ]
    panels = [lambda axes: plot_sparsity(axes, names, sparsities, counts)]
    first = masks[names[0]]
    if input_shape is not None and first.shape[:1] == (math.prod(input_shape),):
        panels.append(lambda axes: _plot_pixels(axes, first, input_shape))
    for name in names[:most]:
        panels.append(functools.partial(plot_mask, mask=masks[name], title=name))
    return panels


def _plot_pixels(axes, mask, input_shape):
    """Draw how many connections each pixel of the input has kept."""
    kept = mask.reshape(*input_shape, -1).sum(axis=(2, 3))
    image = axes.imshow(kept, cmap="viridis", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=8)
    axes.set_title("Connections of each input pixel", fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


# What is refused.


def _numbers(name, values):
    """Return a float64 array of finite numbers."""
    try:
        array = np.asarray(values)
    except ValueError:  # of rows that differ in length
        array = np.asarray(None)
    if array.dtype.kind in "fiub":
        with np.errstate(over="ignore"):  # longer ones may be infinite then
            array = array.astype("float64")
    if array.dtype.kind != "f" or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` must be an array of booleans or finite numbers, not empty. "
            f"Received: {name}={values!r}"
        )
    return array


def check_axes(axes):
    """Refuse what is no axes of Matplotlib."""
    if isinstance(axes, type) or not hasattr(axes, "imshow"):
        raise ValueError(f"`axes` must be axes of Matplotlib. Received: axes={axes!r}")


def _epochs(history):
    """Return the logs of each epoch, a list of dicts."""
    numbers = getattr(history, "epoch", None)  # of a `History`, from 0
    rows = getattr(history, "history", history)
    if isinstance(rows, dict):
        try:
            values = list(zip(*rows.values(), strict=True))
            numbers = range(len(values)) if numbers is None else numbers
            rows = [
                {"epoch": number + 1, **dict(zip(rows, row, strict=True))}
                for number, row in zip(numbers, values, strict=True)
            ]
        except (TypeError, ValueError):  # no lists, or of other lengths
            rows = None
    if isinstance(rows, list | tuple) and all(isinstance(row, dict) for row in rows):
        return rows
    raise ValueError(
        "`history` must be what `fit` returned, with a number for each epoch under "
        "every name, or a list of the logs of each epoch, dicts from name to number. "
        f"Received: history={history!r}"
    )


def _check_column(name, values, names):
    rows = isinstance(values, list | tuple | np.ndarray) and np.shape(values) == (
        len(names),
    )
    kinds = {
        "names": (lambda v: isinstance(v, str), "a string"),
        "sparsities": (lambda v: is_number(v) and 0 <= v <= 1, "a number in [0, 1]"),
        "counts": (lambda v: is_number(v) and v >= 0, "a number of at least 0"),
    }
    fits, wanted = kinds[name]
    if not rows or not all(map(fits, values)):
        raise ValueError(
            f"`{name}` must be a list with one entry for each weight, {wanted}. "
            f"Received: {name}={values!r}"
        )


def _checked_masks(masks):
    if not isinstance(masks, dict):
        raise ValueError(
            "`masks` must be a dict from names of weights to arrays. "
            f"Received: masks={masks!r}"
        )
    for name, mask in masks.items():
        text("name of a mask", name)
        _numbers(name, mask)
    return {name: np.asarray(mask) for name, mask in masks.items()}


def _check_shape(shape):
    fits = isinstance(shape, list | tuple) and len(shape) == 3
    if not fits or not all(is_integer(size) and size > 0 for size in shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels) of the images. "
            f"Received: input_shape={shape!r}"
        )
