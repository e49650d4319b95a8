"""Block-sparse products against the dense product, with XLA and without."""

import numpy as np
import pytest
import tensorflow as tf

from keras_es import _compat
from keras_es.ops.block_sparse import block_matmul, to_dense

# XLA gets one layout where gradients are taken and another where they are not.
with_and_without_xla = pytest.mark.parametrize(
    ("jit", "training"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["graph", "graph-training", "xla", "xla-training"],
)


def case(groups=6, columns=5, count=3, rows=4, cols=2, seed=0):
    rng = np.random.default_rng(seed)
    index = np.stack([rng.permutation(groups)[:count] for _ in range(columns)])
    blocks = rng.normal(size=(columns, count, rows, cols)).astype("float32")
    return blocks, index.astype("int32"), groups


def dense_by_numpy(blocks, index, groups):
    columns, count, rows, cols = blocks.shape
    dense = np.zeros((groups * rows, columns * cols), blocks.dtype)
    for c in range(columns):
        for j in range(count):
            top, left = index[c, j] * rows, c * cols
            dense[top : top + rows, left : left + cols] += blocks[c, j]
    return dense


def product_and_gradients(x, blocks, index, weights, jit, training):
    @tf.function(jit_compile=jit, autograph=False)
    def run(x, blocks):
        with tf.GradientTape() as tape:
            tape.watch([x, blocks])
            y = block_matmul(x, blocks, index, training)
            total = tf.reduce_sum(y * tf.cast(weights, y.dtype))
        return y, *tape.gradient(total, [x, blocks])

    return [found.numpy() for found in run(tf.constant(x), tf.constant(blocks))]


@with_and_without_xla
@pytest.mark.parametrize("lead", [(1,), (7,), (2, 3), (2, 1, 3), (0,)], ids=str)
def test_product_and_gradients_are_those_of_the_dense_matrix(lead, jit, training):
    blocks, index, groups = case()
    dense = dense_by_numpy(blocks, index, groups)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(*lead, dense.shape[0])).astype("float32")
    weights = rng.normal(size=(*lead, dense.shape[1])).astype("float32")
    y, dx, d_blocks = product_and_gradients(x, blocks, index, weights, jit, training)
    flat = x.reshape(-1, dense.shape[0]), weights.reshape(-1, dense.shape[1])
    np.testing.assert_allclose(y, x @ dense, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, weights @ dense.T, rtol=1e-5, atol=1e-5)
    d_dense = (flat[0].T @ flat[1]).reshape(groups, 4, 5, 2).transpose(2, 0, 1, 3)
    expected = np.take_along_axis(d_dense, index[:, :, None, None], axis=1)
    np.testing.assert_allclose(d_blocks, expected, rtol=1e-5, atol=1e-5)


@with_and_without_xla
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types(dtype, jit, training):
    blocks, index, groups = case(groups=40, columns=30, count=20)
    dense = dense_by_numpy(blocks, index, groups)
    x = np.random.default_rng(1).normal(size=(3, dense.shape[0]))
    weights = np.ones((3, dense.shape[1]))
    cast = [tf.cast(v, dtype) for v in (x, blocks)]
    found = product_and_gradients(*cast, index, weights, jit, training)
    assert {str(v.dtype) for v in found} == {dtype}
    expected = x @ dense, weights @ dense.T
    tolerance = {"float16": 2e-2, "bfloat16": 2e-1, "float64": 1e-10}[dtype]
    if dtype == "float64":
        dense = dense_by_numpy(blocks.astype("float64"), index, groups)
        expected = x @ dense, weights @ dense.T
    for value, reference in zip(found, expected):
        np.testing.assert_allclose(
            value.astype("float64"), reference, rtol=tolerance, atol=10 * tolerance
        )


@with_and_without_xla
def test_a_block_of_inputs_may_appear_twice(jit, training):
    blocks, index, groups = case()
    index[:, 1] = index[:, 0]
    dense = dense_by_numpy(blocks, index, groups)
    x = np.random.default_rng(1).normal(size=(3, dense.shape[0])).astype("float32")
    weights = np.ones((3, dense.shape[1]), "float32")
    y, dx, _ = product_and_gradients(x, blocks, index, weights, jit, training)
    np.testing.assert_allclose(y, x @ dense, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, weights @ dense.T, rtol=1e-5, atol=1e-5)


@with_and_without_xla
def test_gradients_pass_through_a_loop(jit, training):
    blocks, index, groups = case(groups=2, columns=4, count=1, rows=4, cols=2)
    dense = dense_by_numpy(blocks, index, groups)
    x = np.random.default_rng(1).normal(size=(3, 8)).astype("float32")

    @tf.function(jit_compile=jit, autograph=False)
    def run(x, blocks):
        with tf.GradientTape() as tape:
            tape.watch(blocks)
            _, y = tf.while_loop(
                lambda i, _: i < 3,
                lambda i, y: (i + 1, block_matmul(y, blocks, index, training)),
                (0, x),
                maximum_iterations=3,
            )
            total = tf.reduce_sum(y)
        return y, tape.gradient(total, blocks)

    y, gradient = run(tf.constant(x), tf.constant(blocks))
    np.testing.assert_allclose(y, x @ dense @ dense @ dense, rtol=1e-4, atol=1e-4)
    step = np.zeros_like(blocks)
    step[1, 0, 2, 1] = 1e-3
    up, down = (
        np.linalg.multi_dot([x, *[dense_by_numpy(b, index, groups)] * 3]).sum()
        for b in (blocks.astype("float64") + step, blocks - step)
    )
    np.testing.assert_allclose(gradient[1, 0, 2, 1], (up - down) / 2e-3, rtol=1e-3)


def test_it_is_known_whether_xla_compiles():
    found = []

    def look(x):
        found.append(_compat.in_xla())
        return tf.while_loop(lambda i: i < 1, lambda i: inner(i), (x,))[0]

    def inner(i):
        found.append(_compat.in_xla())
        return (i + 1,)

    for jit in (False, True):
        compiled = tf.function(look, jit_compile=jit, autograph=False)
        tf.function(compiled, autograph=False)(tf.constant(0))
    tf.function(look, jit_compile=True, autograph=False)(tf.constant(0))
    assert found == [False, False, True, True, True, True]
    assert not _compat.in_xla()


def test_an_unknown_batch_keeps_the_static_shape():
    blocks, index, _ = case()

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 24])])
    def run(x):
        y = block_matmul(x, blocks, index)
        assert y.shape.as_list() == [None, 3, 10]
        return y

    assert run(tf.zeros([2, 3, 24])).shape == (2, 3, 10)


def test_to_dense():
    blocks, index, groups = case()
    expected = dense_by_numpy(blocks, index, groups)
    np.testing.assert_array_equal(to_dense(blocks, index, groups), expected)


def test_inputs_that_blocks_do_not_divide_are_refused():
    blocks, index, _ = case()
    with pytest.raises(ValueError, match="multiple of 4.*Received: x of shape"):
        block_matmul(tf.zeros([2, 23]), blocks, index)
