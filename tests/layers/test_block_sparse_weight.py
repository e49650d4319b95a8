"""What an optimizer of masks asks of a block-sparse weight, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.layers.block_sparse_layers import (
    built,
    dense,
    inputs,
    weights_of,
    with_and_without_xla,
)


def weight_and_units(seed=0, count=None):
    """Return a weight, its layer and the mask of a member that shares some blocks."""
    layer = built(dense())
    (weight,) = weights_of(layer)
    rng = np.random.default_rng(seed)
    scores = weight.mask_scores.value + 0.5 * rng.normal(size=weight.mask_scores.shape)
    units = weight.decode(tf.cast(scores, tf.float32)).numpy()
    if count == "fewer":
        units[:, ::2] = False
    elif count == "more":
        units[:, ::2] = True
    return layer, weight, units


def expanded(units):
    return np.repeat(np.repeat(units, 4, axis=0), 8, axis=1)


def kept_by_numpy(weight, units):
    index = weight.block_index.numpy()
    return np.stack([units[index[c], c] for c in range(len(index))])


def compiled(function, jit):
    return tf.function(function, jit_compile=jit, autograph=False)


@with_and_without_xla
@pytest.mark.parametrize("count", [None, "fewer", "more"])
def test_a_member_reads_the_stored_blocks_that_it_uses(count, jit):
    layer, weight, units = weight_and_units(count=count)
    run = compiled(lambda v, u: weight.member_values(v, u)[0], jit)
    effective = run(weight.kernel.value, tf.constant(units))
    kept = kept_by_numpy(weight, units)
    assert 0 < kept.sum() < kept.size
    expected = weight.kernel.numpy() * kept[:, :, None, None]
    np.testing.assert_array_equal(effective, expected)
    # As a dense matrix: what is stored and used; what is not stored is zero.
    mask = expanded(units)
    before = weight.effective_value().numpy()
    weight.kernel.assign(effective)
    np.testing.assert_array_equal(weight.effective_value(), before * mask)
    x = inputs(layer)
    y = x @ (before * mask) + layer.bias.numpy()
    np.testing.assert_allclose(layer(x), y, rtol=1e-5, atol=1e-5)


def test_the_deployed_member():
    _, weight, _ = weight_and_units()
    value = tf.convert_to_tensor(weight.kernel.value)
    effective, overrides = weight.member_values(value, None)
    assert effective is value and overrides == []
    active = tf.broadcast_to(weight.active(None), value.shape)
    assert active.dtype == tf.bool and active.numpy().all()


@with_and_without_xla
def test_gradients_reach_the_blocks_that_a_member_uses(jit):
    _, weight, units = weight_and_units()
    active = compiled(weight.active, jit)(tf.constant(units))
    assert active.dtype == tf.bool
    np.testing.assert_array_equal(active[:, :, 0, 0], kept_by_numpy(weight, units))
    tf.broadcast_static_shape(active.shape, weight.kernel.shape)


@with_and_without_xla
@pytest.mark.parametrize("deployed", [False, True])
def test_unit_gradient(deployed, jit):
    _, weight, units = weight_and_units()
    gradient = np.random.default_rng(3).normal(size=weight.kernel.shape)
    gradient = gradient.astype("float32")
    given = None if deployed else tf.constant(units)
    run = compiled(lambda g, v: weight.unit_gradient(g, v, given), jit)
    found = run(tf.constant(gradient), weight.kernel.value)
    expected = np.zeros((10, 6))
    kept = kept_by_numpy(weight, np.ones_like(units) if deployed else units)
    for (c, j), keep in np.ndenumerate(kept):
        row = weight.block_index.numpy()[c, j]
        expected[row, c] = keep * (gradient[c, j] * weight.kernel.numpy()[c, j]).sum()
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@with_and_without_xla
def test_deploy_moves_blocks_and_zeroes_what_is_new(jit):
    layer, weight, units = weight_and_units()
    slots = [
        tf.Variable(tf.ones(weight.kernel.shape)),
        tf.Variable(weight.kernel.value),
    ]
    slots = [_slot(s) for s in slots]
    scores = tf.random.normal(weight.mask_scores.shape)
    old_units, old = weight.stored_units().numpy(), weight.effective_value().numpy()
    kept = kept_by_numpy(weight, units)

    @tf.function(jit_compile=jit, autograph=False)
    def run():
        assignments, flipped = weight.deploy(scores, tf.constant(units), slots)
        return [value for _, value in assignments], flipped

    values, flipped = run()
    variables = [v for v, _ in weight.deploy(scores, tf.constant(units), slots)[0]]
    assert list(map(id, variables)) == list(
        map(id, [weight.mask_scores, weight.block_index, weight.kernel, *slots])
    )
    for variable, value in zip(variables, values):
        variable.assign(value)
    assert flipped == (expanded(units) != expanded(old_units)).sum()
    np.testing.assert_array_equal(weight.mask_scores, scores)
    np.testing.assert_array_equal(weight.stored_units(), units)
    np.testing.assert_array_equal(
        weight.effective_value(), old * expanded(units & old_units)
    )
    np.testing.assert_array_equal(slots[0], np.broadcast_to(
        kept[:, :, None, None], weight.kernel.shape))  # fmt: skip
    x = inputs(layer)
    y = x @ weight.effective_value().numpy() + layer.bias.numpy()
    np.testing.assert_allclose(layer(x), y, rtol=1e-5, atol=1e-5)


def _slot(variable):
    # A Keras variable has `value`; so has what stands in for an optimizer's slot.
    import keras

    return keras.Variable(variable.numpy(), dtype="float32", trainable=False)


def test_deploying_the_same_mask_changes_nothing():
    _, weight, _ = weight_and_units()
    assignments, flipped = weight.deploy(
        weight.mask_scores.value, weight.stored_units(), [weight.kernel]
    )
    assert flipped == 0
    for variable, value in assignments:
        np.testing.assert_array_equal(variable, value)


def test_columns_keep_to_a_constraint_without_the_blocks_that_left():
    layer = built(dense(kernel_constraint="unit_norm"))
    (weight,) = weights_of(layer)
    layer.kernel.assign(layer.kernel.constraint(layer.kernel))
    scores = tf.random.stateless_normal(weight.mask_scores.shape, (1, 2))
    units = weight.decode(scores).numpy()
    stays = (units & weight.stored_units().numpy()).any(axis=0)
    assignments, flipped = weight.deploy(scores, tf.constant(units))
    assert flipped > 0
    for variable, value in assignments:
        variable.assign(value)
    norms = np.linalg.norm(weight.effective_value(), axis=0)
    np.testing.assert_allclose(norms, np.repeat(stays, 8), rtol=1e-5)


def test_names_and_tag():
    layer, weight, _ = weight_and_units()
    assert layer.kernel.masked_weight is weight
    assert weight.name.endswith("/kernel") and weight.attribute == "kernel"
    assert str(weight.pattern) == "Block(rows=4, cols=8)"
