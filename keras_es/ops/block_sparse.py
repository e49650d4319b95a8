"""Products with matrices of which only some blocks are stored.

A matrix of shape (inputs, outputs) is divided into blocks of `rows` x `cols`: R =
inputs / rows by C = outputs / cols of them. Each of the C columns of blocks keeps k,

    blocks       [C, k, rows, cols]   the weights,
    block_index  [C, k]               which of the R blocks of inputs each multiplies,

so that memory and work are k/R of the dense matrix, and every column costs the same:
the product is one batched matrix product of gathered inputs. This file needs
TensorFlow for the custom gradient.
"""

import tensorflow as tf

from keras_es import _compat


def block_matmul(x, blocks, block_index, training=False):
    """Multiply x by a block-sparse matrix W.

    y[:, c] = sum_j x[:, i_cj] W_cj, where x[:, i] are the inputs of block i, y[:, c]
    the outputs of column c and i_cj = block_index[c, j].

    Gathering takes the inputs k times for each column; with its adjoint, a sum by
    segments, the gradients are

        dL/dW_cj = x[:, i_cj]^T dL/dy[:, c],
        dL/dx[:, i] = sum over (c, j) with i_cj = i of dL/dy[:, c] W_cj^T.

    Args:
        x: Float tensor [..., inputs] with static `inputs`, a multiple of `rows`.
        blocks: Tensor [C, k, rows, cols] of the same type.
        block_index: int32 tensor [C, k] with values in [0, inputs / rows). A block
            of inputs may appear twice in a column; its weights then add up.
        training: Whether gradients will be taken. They can be in either case; under
            XLA other layouts are fastest with them.

    Returns:
        Tensor [..., C * cols].

    Raises:
        ValueError: If `rows` does not divide the inputs.

    Example:

    >>> x = tf.constant([[1.0, 2.0, 3.0, 4.0]])
    >>> block_matmul(x, tf.ones([2, 1, 2, 1]), [[1], [0]]).numpy()
    array([[7., 3.]], dtype=float32)

    References:
        Gray, Radford and Kingma 2017, "GPU Kernels for Block-Sparse Weights".
    """
    x, blocks = tf.convert_to_tensor(x), tf.convert_to_tensor(blocks)
    columns, _, rows, cols = blocks.shape
    inputs = x.shape[-1]
    if inputs is None or inputs % rows:
        raise ValueError(
            f"The last axis of `x` must be static and a multiple of {rows}, the rows "
            f"of a block. Received: x of shape {x.shape}"
        )
    index = tf.convert_to_tensor(block_index, tf.int32)
    product = _as_columns
    if _compat.in_xla():
        product = _apart_as_columns if training else _as_rows
    if x.shape.rank == 2:
        return product(x, blocks, index)
    outputs = columns * cols
    y = product(tf.reshape(x, [-1, inputs]), blocks, index)
    y = tf.reshape(y, tf.concat([tf.shape(x)[:-1], [outputs]], 0))
    y.set_shape([*x.shape[:-1], outputs])
    return y


# Three layouts of the same product [batch, inputs] -> [batch, C * cols], each the
# fastest where it is used. Gradients are written out: those of automatic
# differentiation cost a tenth more, and that of the gather is sparse, with a warning.


@tf.custom_gradient
def _as_columns(x, blocks, index):
    """Gather blocks of rows of x^T, each of which lies in one piece."""
    gathered = _gather_columns(_blocks_of_columns(x, blocks), blocks, index)
    y = tf.matmul(gathered, _by_column(blocks), transpose_a=True)
    y = tf.reshape(tf.transpose(y, [1, 0, 2]), [-1, y.shape[0] * y.shape[2]])
    return y, _gradient_of(gathered, x, blocks, index)


@tf.custom_gradient
def _apart_as_columns(x, blocks, index):
    """The same for XLA, which would fuse the transposition into the gather.

    It then copies number by number, five times as long; nothing is fused across the
    border of a branch.
    """
    groups = x.shape[-1] // blocks.shape[2]
    columns = tf.cond(
        index[0, 0] >= 0,  # always, but XLA cannot know
        lambda: _blocks_of_columns(x, blocks),
        lambda: tf.zeros([groups, tf.size(x) // groups], x.dtype),
    )
    gathered = _gather_columns(columns, blocks, index)
    y = tf.matmul(_by_column(blocks), gathered, transpose_a=True)
    y = tf.transpose(tf.reshape(y, [y.shape[0] * y.shape[1], -1]))
    return y, _gradient_of(gathered, x, blocks, index)


@tf.custom_gradient
def _as_rows(x, blocks, index):
    """Gather blocks of columns of x: XLA multiplies fastest without transposition."""
    columns, count, rows, cols = blocks.shape
    by_block = tf.reshape(x, [-1, x.shape[-1] // rows, rows])
    by_block = tf.transpose(by_block, [1, 0, 2])
    gathered = tf.transpose(tf.gather(by_block, index), [0, 2, 1, 3])
    gathered = tf.reshape(gathered, [columns, -1, count * rows])
    y = tf.matmul(gathered, _by_column(blocks))
    y = tf.reshape(tf.transpose(y, [1, 0, 2]), [-1, columns * cols])
    return y, _gradient_of(gathered, x, blocks, index, rows_first=True)


def _by_column(blocks):
    columns, count, rows, cols = blocks.shape
    return tf.reshape(blocks, [columns, count * rows, cols])


def _blocks_of_columns(x, blocks):
    """Return x^T as [R, rows * batch]."""
    return tf.reshape(tf.transpose(x), [x.shape[-1] // blocks.shape[2], -1])


def _gather_columns(by_block, blocks, index):
    """Return the inputs of each column of blocks, [C, k * rows, batch]."""
    columns, count, rows, _ = blocks.shape
    batch = tf.size(by_block) // (by_block.shape[0] * rows)
    gathered = tf.gather(by_block, index)
    return tf.reshape(gathered, [columns, count * rows, batch])


def _gradient_of(gathered, x, blocks, index, rows_first=False):
    """Return the function from dL/dy to the gradients of x, blocks and index."""
    columns, _, rows, cols = blocks.shape
    groups = x.shape[-1] // rows

    def gradient(dy):
        by_column = tf.transpose(tf.reshape(dy, [-1, columns, cols]), [1, 0, 2])
        d_blocks = tf.matmul(gathered, by_column, transpose_a=rows_first)
        d_blocks = tf.reshape(d_blocks, blocks.shape)
        return _input_gradient(dy, blocks, index, groups), d_blocks, None

    return gradient


def _input_gradient(dy, blocks, index, groups):
    """Return dL/dx [batch, inputs]: a product for each column, summed by input."""
    columns, count, rows, cols = blocks.shape
    dy = tf.reshape(tf.transpose(dy), [columns, cols, -1])
    parts = tf.matmul(tf.reshape(blocks, [columns, count * rows, cols]), dy)
    parts = tf.reshape(parts, [columns, count, rows, -1])
    # Up to C terms are added one by one, too many for 16 bits.
    wide = tf.cast(parts, tf.float32) if parts.dtype.size == 2 else parts
    dx = tf.math.unsorted_segment_sum(wide, index, groups)
    dx = tf.transpose(tf.reshape(dx, [groups * rows, -1]))
    return tf.cast(dx, parts.dtype)


def to_dense(blocks, block_index, groups):
    """Return the dense matrix (groups * rows, C * cols), zero where nothing is stored.

    Args:
        blocks: Tensor [C, k, rows, cols].
        block_index: int32 tensor [C, k].
        groups: R, the number of blocks of inputs.
    """
    columns, count, rows, cols = blocks.shape
    column = tf.broadcast_to(tf.range(columns)[:, None], [columns, count])
    places = tf.stack([tf.convert_to_tensor(block_index, tf.int32), column], axis=-1)
    grid = tf.scatter_nd(places, blocks, [groups, columns, rows, cols])
    return tf.reshape(tf.transpose(grid, [0, 2, 1, 3]), [groups * rows, columns * cols])
