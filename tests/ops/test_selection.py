"""Exactly k, the largest, ties by index: eagerly, in a graph and under XLA."""

import numpy as np
import pytest
import tensorflow as tf

from keras_es.ops import selection
from tests.reference import numpy_masks

MODES = {
    "eager": lambda f: f,
    "graph": lambda f: tf.function(f, autograph=False),
    "xla": lambda f: tf.function(f, autograph=False, jit_compile=True),
}


def vectors():
    rng = np.random.default_rng(0)
    yield "normal", rng.normal(size=97)
    yield "few values", rng.integers(0, 3, size=97)
    yield "all equal", np.zeros(97)
    yield "signed zeros", np.where(rng.random(97) < 0.5, 0.0, -0.0)
    yield "infinite", rng.choice([-np.inf, -1.0, 0.0, np.inf], size=97)
    yield "extreme", rng.choice([3.4e38, -3.4e38, 1.2e-38, -1.2e-38], size=97)
    yield "one", np.ones(1)


VECTORS = {name: v.astype("float32") for name, v in vectors()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VECTORS)
def test_top_k_mask_is_that_of_numpy(name, mode):
    scores = VECTORS[name]
    select = MODES[mode](lambda s, k: selection.top_k_mask(s, k))
    for k in sorted({0, 1, scores.size // 3, scores.size - 1, scores.size}):
        found = select(tf.constant(scores), tf.constant(k)).numpy()
        np.testing.assert_array_equal(found, numpy_masks.top_k(scores, k))


@pytest.mark.parametrize("k", [0, 1, 5, 12])
def test_k_may_be_an_integer_and_scores_a_matrix(k):
    scores = np.random.default_rng(1).integers(0, 4, (3, 4)).astype("float32")
    found = selection.top_k_mask(tf.constant(scores), k).numpy()
    np.testing.assert_array_equal(found, numpy_masks.top_k(scores, k))


def test_many_random_vectors_with_ties():
    rng = np.random.default_rng(2)
    select = tf.function(selection.top_k_mask, autograph=False)
    for _ in range(100):
        scores = rng.integers(0, rng.integers(1, 60), size=41).astype("float32")
        k = int(rng.integers(0, 42))
        found = select(tf.constant(scores), tf.constant(k)).numpy()
        np.testing.assert_array_equal(found, numpy_masks.top_k(scores, k))


@pytest.mark.parametrize("k", [-1, 5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=rf"in \[0, 4\].*Received: k={k}"):
        selection.top_k_mask(tf.zeros(4), k)


def test_keys_are_ordered_as_floats():
    values = np.array([-np.inf, -2, -2e-38, -0.0, 0.0, 2e-38, 2, np.inf], "float32")
    keys = selection.ordered_keys(tf.constant(values)).numpy()
    np.testing.assert_array_equal(np.sign(np.diff(keys)), np.sign(np.diff(values)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_top_n_in_groups_is_that_of_numpy(axis, n):
    shape = [3, 3, 3]
    shape[axis] = 4
    scores = np.random.default_rng(3).integers(0, 3, shape).astype("float32")
    found = selection.top_n_in_groups(tf.constant(scores), n, axis).numpy()
    expected = np.apply_along_axis(numpy_masks.top_k, axis, scores, n)
    np.testing.assert_array_equal(found, expected)


def test_many_sizes_log_no_retracing(caplog):
    def decode():
        for size in range(2, 14):
            selection.top_k_mask(tf.zeros(size), tf.constant(1))

    decode()
    tf.function(decode, autograph=False)()
    assert not caplog.records


STARTS = [(0.0, 0.0), (1.0, 1e-3), (-3e38, 1e30), (1e-42, 1e-30), (5.0, 0.0)]


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("name", VECTORS)
def test_top_k_near_is_that_of_numpy_wherever_it_starts(name, mode):
    scores = VECTORS[name]
    select = MODES[mode](selection.top_k_near)
    for k in sorted({0, 1, scores.size // 3, scores.size - 1, scores.size}):
        for start in STARTS:
            found, end = select(tf.constant(scores), tf.constant(k), tf.constant(start))
            np.testing.assert_array_equal(found, numpy_masks.top_k(scores, k))
            assert np.all(np.isfinite(end))


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_top_k_near_follows_sizes_of_weights(mode):
    """Falling numbers, zeros that tie, subnormal numbers; a size of odd rows."""
    rng = np.random.default_rng(4)
    scores = np.abs(rng.normal(size=4321)).astype("float32")
    scores[:400], scores[400:500] = 0.0, 1e-41
    select, start = MODES[mode](selection.top_k_near), tf.zeros(2)
    for k in [4321, 4320, 4000, 3900, 2000, 1990, 1500, 1500, 216, 216, 1, 0, 216]:
        found, start = select(tf.constant(scores), tf.constant(k), start)
        # The processor may flush subnormal numbers, which then tie with zero.
        kept = np.where(scores < 1e-38, 0.0, scores)
        np.testing.assert_array_equal(found, numpy_masks.top_k(kept, k))
        moved = np.abs(scores + rng.normal(size=4321) * 0.01).astype("float32")
        scores = np.where(scores < 1e-38, scores, moved)


def test_top_k_near_looks_a_few_times():
    """A threshold that is where it was costs one look, one near it a handful."""
    rng = np.random.default_rng(5)
    scores = np.abs(rng.normal(size=20000)).astype("float32")
    start = selection.top_k_near(tf.constant(scores), 1000, tf.zeros(2))[1]
    looks = []
    counted = selection.count_true

    def count(condition):
        looks.append(1)
        return counted(condition)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "count_true", count)
        selection.top_k_near(tf.constant(scores), 1000, start)
        assert len(looks) == 1
        for _ in range(10):
            scores = np.abs(scores + 0.01 * rng.normal(size=20000)).astype("float32")
            start = selection.top_k_near(tf.constant(scores), 1000, start)[1]
    assert len(looks) < 1 + 10 * 10
