"""Patterns: what a unit is, that decoding is exact, and what is refused."""

import keras
import numpy as np
import pytest

from keras_es import layers, patterns
from keras_es.patterns import Block, Channel, NByM, Rows, Unstructured
from tests.reference import numpy_masks

MATRIX = (12, 8)
PATTERNS = [Unstructured(), Block(1, 1), Block(4, 2), Block(12, 8), Channel(), Rows()]
ALL = [*PATTERNS, NByM(1, 4), NByM(2, 4), NByM(3, 3)]


def sparsity_of(pattern, otherwise):
    return getattr(pattern, "sparsity", otherwise)


def random_scores(pattern, seed, levels=5):
    shape = pattern.units_shape(MATRIX)
    return np.random.default_rng(seed).integers(0, levels, shape).astype("float32")


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_decoding_is_that_of_numpy_with_ties(pattern):
    for seed, sparsity in enumerate((0.0, 0.3, 0.5, 0.9, 0.999)):
        sparsity = sparsity_of(pattern, sparsity)
        scores = random_scores(pattern, seed)
        count = pattern.unit_count(sparsity, MATRIX)
        units = pattern.decode(keras.ops.convert_to_tensor(scores), count)
        mask = keras.ops.convert_to_numpy(pattern.expand(units, MATRIX))
        expected = numpy_masks.weight_mask(pattern, scores, sparsity, MATRIX)
        np.testing.assert_array_equal(mask, expected)
        assert keras.ops.convert_to_numpy(units).sum() == count


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_expand_and_reduce_are_adjoint(pattern):
    rng = np.random.default_rng(0)
    for _ in range(5):
        units = rng.normal(size=pattern.units_shape(MATRIX)).astype("float32")
        matrix = rng.normal(size=MATRIX).astype("float32")
        left = np.sum(
            keras.ops.convert_to_numpy(pattern.expand(units, MATRIX)) * matrix
        )
        reduced = pattern.reduce(keras.ops.convert_to_tensor(matrix))
        right = np.sum(units * keras.ops.convert_to_numpy(reduced))
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_units_share_out_the_matrix(pattern):
    ones = keras.ops.ones(pattern.units_shape(MATRIX))
    assert float(keras.ops.sum(pattern.expand(ones, MATRIX))) == 12 * 8
    per_unit = keras.ops.convert_to_numpy(pattern.reduce(keras.ops.ones(MATRIX)))
    assert len(np.unique(per_unit)) == 1


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_config_round_trip(pattern):
    config = keras.saving.serialize_keras_object(pattern)
    assert patterns.get(config) == pattern
    assert hash(patterns.get(config)) == hash(pattern)


def test_single_blocks_are_unstructured():
    scores = random_scores(Unstructured(), 7)
    masks = []
    for pattern in (Unstructured(), Block(1, 1)):
        count = pattern.unit_count(0.8, MATRIX)
        units = pattern.decode(keras.ops.convert_to_tensor(scores), count)
        masks.append(keras.ops.convert_to_numpy(pattern.expand(units, MATRIX)))
    np.testing.assert_array_equal(*masks)


def test_columns_are_channels():
    assert Channel().units_shape(MATRIX) == (8,)
    assert Block(12, 1).units_shape(MATRIX) == (1, 8)
    assert Channel().unit_count(0.5, MATRIX) == Block(12, 1).unit_count(0.5, MATRIX)


def test_rows_are_inputs():
    assert Rows().units_shape(MATRIX) == (12,)
    assert Block(1, 8).units_shape(MATRIX) == (12, 1)
    assert Rows().unit_count(0.5, MATRIX) == Block(1, 8).unit_count(0.5, MATRIX)


def test_at_least_one_unit_stays():
    assert Channel().unit_count(0.99, MATRIX) == 1
    assert Block(12, 8).unit_count(0.9, MATRIX) == 1


def test_n_by_m_fixes_the_sparsity():
    assert NByM(1, 4).sparsity == 0.75
    with pytest.raises(ValueError, match="fixes the sparsity at 1 - n/m = 0.75"):
        NByM(1, 4).unit_count(0.5, MATRIX)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Block(0, 1), "`rows` of Block must be a positive.*rows=0"),
        (lambda: Block(1, 2.0), "`cols` of Block must be a positive.*cols=2.0"),
        (lambda: Block(True, 1), "`rows` of Block must be a positive.*rows=True"),
        (lambda: NByM(5, 4), "1 <= n <= m <= 32. Received: n=5, m=4"),
        (lambda: NByM(0, 4), "1 <= n <= m <= 32. Received: n=0, m=4"),
        (lambda: NByM(1, 64), "1 <= n <= m <= 32. Received: n=1, m=64"),
        (lambda: NByM(True, 4), "1 <= n <= m <= 32. Received: n=True, m=4"),
        (lambda: patterns.get("block"), "must be a keras_es.patterns.*'block'"),
        (lambda: patterns.get(Block), "must be a keras_es.patterns.Pattern"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "input_shape", "weight", "matrix"),
    [
        (
            lambda p: layers.MaskedDense(6, pattern=p, name="x"),
            (None, 9),
            "(9, 6)",
            "(9, 6)",
        ),
        (
            lambda p: layers.MaskedConv2D(6, 3, pattern=p, name="x"),
            (None, 8, 8, 1),
            "(3, 3, 1, 6)",
            "(9, 6)",
        ),
        (
            lambda p: layers.MaskedGRU(6, pattern=p, name="x"),
            (None, 5, 9),
            "(9, 18)",
            "(9, 18)",
        ),
    ],
)
@pytest.mark.parametrize("pattern", [Block(4, 1), Block(1, 5), NByM(2, 4)], ids=str)
def test_what_does_not_divide_names_layer_shape_and_pattern(
    make, input_shape, weight, matrix, pattern
):
    with pytest.raises(ValueError) as caught:
        make(pattern).build(input_shape)
    message = str(caught.value)
    expected = ("x", "weight 'kernel'", f"of shape {weight}", matrix, str(pattern))
    for part in expected:
        assert part in message
    assert "exclude" in message
