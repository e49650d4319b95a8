"""Choice and placement of blocks against NumPy, column by column."""

import numpy as np
import pytest
import tensorflow as tf

from keras_es.ops import block_index

shapes = pytest.mark.parametrize(
    "rows, columns, k", [(1, 3, 1), (6, 5, 2), (64, 3, 64), (65, 4, 7), (300, 5, 29)]
)
with_and_without_xla = pytest.mark.parametrize(
    "jit", [False, True], ids=["graph", "xla"]
)


def chosen_by_numpy(scores, k):
    order = np.argsort(-scores, axis=0, kind="stable")
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, order[:k], True, axis=0)
    return mask


def place_by_numpy(index, units):
    new_index, kept = index.copy(), np.zeros(index.shape, bool)
    for c, column in enumerate(index):
        kept[c] = units[column, c]
        incoming = [r for r in np.flatnonzero(units[:, c]) if r not in column]
        for place, row in zip(np.flatnonzero(~kept[c]), incoming):
            new_index[c, place] = row
    return new_index, kept


def random_index(rows, columns, k, rng):
    return np.stack([rng.permutation(rows)[:k] for _ in range(columns)]).astype("int32")


def random_units(rows, columns, k, rng):
    return chosen_by_numpy(rng.normal(size=(rows, columns)), k)


@shapes
@with_and_without_xla
def test_top_k_in_columns(rows, columns, k, jit):
    rng = np.random.default_rng(0)
    select = tf.function(block_index.top_k_in_columns, jit_compile=jit, autograph=False)
    for scores in (
        rng.normal(size=(rows, columns)),
        rng.integers(-2, 3, size=(rows, columns)),
        np.zeros((rows, columns)),
        np.where(rng.random((rows, columns)) < 0.5, 0.0, -0.0),
        np.where(rng.random((rows, columns)) < 0.5, np.inf, -np.inf),
    ):
        scores = scores.astype("float32")
        found = select(tf.constant(scores), k).numpy()
        np.testing.assert_array_equal(found, chosen_by_numpy(scores, k))
        assert (found.sum(axis=0) == k).all()


@shapes
@with_and_without_xla
def test_place(rows, columns, k, jit):
    rng = np.random.default_rng(1)
    place = tf.function(block_index.place, jit_compile=jit, autograph=False)
    for _ in range(3):
        index = random_index(rows, columns, k, rng)
        units = random_units(rows, columns, k, rng)
        found, kept = place(tf.constant(index), tf.constant(units))
        expected = place_by_numpy(index, units)
        np.testing.assert_array_equal(found, expected[0])
        np.testing.assert_array_equal(kept, expected[1])
        stored = block_index.is_stored(found, rows)
        np.testing.assert_array_equal(stored, units)


def test_a_mask_with_fewer_blocks_leaves_places_as_they_are():
    units = np.zeros((4, 2), bool)
    units[3, 0] = True
    index, kept = block_index.place(tf.constant([[0, 1], [2, 3]]), tf.constant(units))
    np.testing.assert_array_equal(index, [[3, 1], [2, 3]])
    assert not kept.numpy().any()


@shapes
def test_positions_of(rows, columns, k):
    units = random_units(rows, columns, k, np.random.default_rng(2))
    found = block_index.positions_of(tf.constant(units), k)
    expected = [np.flatnonzero(units[:, c]) for c in range(columns)]
    np.testing.assert_array_equal(found, expected)


@with_and_without_xla
def test_spread_and_is_active_are_adjoint(jit):
    rng = np.random.default_rng(3)
    index = tf.constant(random_index(7, 5, 3, rng))
    units = rng.normal(size=(7, 5)).astype("float32")
    values = rng.normal(size=(5, 3)).astype("float32")
    spread = tf.function(block_index.spread, jit_compile=jit, autograph=False)
    read = block_index.is_active(tf.constant(units), index)
    np.testing.assert_allclose(
        np.sum(spread(tf.constant(values), index, 7) * units),
        np.sum(values * read),
        rtol=1e-5,
    )
