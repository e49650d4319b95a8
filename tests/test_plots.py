"""Pictures: what they show, and that they leave no trace in matplotlib."""

import keras
import numpy as np
import pytest

from keras_es import plots

HISTORY = [
    {"epoch": e, "loss": 1 / e, "val_loss": 2 / e, "accuracy": 0.1 * e}
    for e in (1, 2, 3)
]


def axes():
    from matplotlib.figure import Figure

    return Figure().add_subplot()


@pytest.mark.parametrize(
    ("shape", "picture_shape"),
    [((4, 6), (4, 6)), ((3, 3, 2, 5), (18, 5)), ((7,), (7, 1)), ((600, 3), (256, 3))],
)
def test_mask_picture_is_the_matrix_of_the_kernel(shape, picture_shape):
    mask = np.random.default_rng(0).random(shape) < 0.3
    picture = plots.mask_picture(mask)
    assert picture.shape == picture_shape
    if mask.size == picture.size:
        np.testing.assert_array_equal(np.ravel(picture), np.ravel(mask))


@pytest.mark.parametrize("shape", [(10, 10), (7, 13), (256, 3)])
def test_smaller_pictures_keep_densities(shape):
    mask = np.random.default_rng(0).random(shape) < 0.3
    picture = plots.mask_picture(mask, max_side=3)
    assert max(picture.shape) <= 3 and 0 <= picture.min() <= picture.max() <= 1
    rows = np.array_split(np.arange(shape[0]), 3)
    if shape == (10, 10):
        assert picture.mean() == pytest.approx(mask.mean(), abs=0.05)
    assert len(rows) == picture.shape[0]


def test_picture_of_blocks_is_exact_where_parts_are_equal():
    mask = np.kron(np.eye(3), np.ones((4, 4)))
    np.testing.assert_array_equal(plots.mask_picture(mask, max_side=3), np.eye(3))


def test_curves_of_training_and_test():
    ax = axes()
    plots.plot_curves(ax, HISTORY, "loss")
    assert [line.get_label() for line in ax.lines] == ["training", "test"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [2, 1, 2 / 3])


def test_what_fit_returned_is_a_history_and_so_is_its_dict():
    history = keras.callbacks.History()
    history.epoch, history.history = [4, 5], {"loss": [0.25, 0.2]}
    for given, epochs in ((history, [5, 6]), (history.history, [1, 2])):
        ax = axes()
        plots.plot_curves(ax, given, "loss")
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), epochs)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.25, 0.2])
        assert plots.run_report(given, {}, "run").axes[0].lines
    # Which epochs `validation_freq` left out is not known.
    for wrong in ({"loss": [1.0, 0.5], "val_loss": [1.0]}, {"loss": 1.0}, 3, None):
        with pytest.raises(ValueError, match="what `fit` returned.*Received: history="):
            plots.plot_curves(axes(), wrong, "loss")


def test_curves_skip_epochs_without_a_value():
    ax = axes()
    plots.plot_curves(ax, [{"loss": 1.0}, {"loss": None}, {"loss": 0.5}], "loss")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 3])


def test_sparsity_bars():
    ax = axes()
    plots.plot_sparsity(ax, ["a", "b"], [0.9, 0.1], [10, 1900])
    assert [bar.get_width() for bar in ax.patches] == [0.9, 0.1]
    assert [text.get_text() for text in ax.texts] == [
        "90.0%, 10 left",
        "10.0%, 1,900 left",
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a"], [90], [3]), r"`sparsities` must be.*in \[0, 1\].*Received"),
        ((["a"], [0.9], [-3]), "`counts` must be.*at least 0. Received"),
        (([1], [0.9], [3]), "`names` must be.*a string. Received"),
        ((["a"], [0.9, 0.8], [3]), "`sparsities` must be a list with one entry for"),
    ],
)
def test_bars_of_what_is_no_sparsity_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        plots.plot_sparsity(axes(), *columns)


def test_report_shows_pixels_when_the_first_weight_has_one_row_each():
    masks = {"a/kernel": np.ones((12, 5)), "b/kernel": np.eye(5)}
    titles = [
        ax.get_title()
        for ax in plots.run_report(HISTORY, masks, "run", (3, 2, 2)).axes
        if ax.get_title()
    ]
    assert titles == [
        "Loss", "Accuracy", "Sparsity", "Connections of each input pixel",
        "a/kernel", "b/kernel",
    ]  # fmt: skip
    figure = plots.run_report(HISTORY, masks, "run", (4, 4, 1))
    assert "Connections of each input pixel" not in [a.get_title() for a in figure.axes]
    assert plots.run_report(HISTORY, {"one": np.array(True)}, "run", (4, 4, 1)).axes


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1], []])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_report_of_any_run_can_be_written(history, count, tmp_path):
    masks = {f"layer_{i}/kernel": np.eye(3) for i in range(count)}
    figure = plots.run_report(history, masks, "two\nlines")
    figure.savefig(tmp_path / "report.png", dpi=20)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_pyplot_is_not_touched():
    plots.run_report(HISTORY, {}, "run")
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
