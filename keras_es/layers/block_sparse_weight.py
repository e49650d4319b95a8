"""One block-sparse weight: the active blocks, their index and the scores of all."""

import copy
import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from keras_es import patterns
from keras_es.layers.sparse_weight import SparseWeight
from keras_es.ops import block_index as index_ops
from keras_es.ops import block_sparse


@dataclasses.dataclass(eq=False)
class BlockSparseWeight(SparseWeight):
    """A weight of which only the active blocks are stored.

    The matrix (inputs, outputs) has R x C blocks of rows x cols; each of the C columns
    of blocks keeps the k with the best scores. It has what an optimizer of masks needs
    of a `MaskedWeight`, with two differences that come of storing nothing of the dense
    size: an inactive block has no latent value, so one that is swapped in starts at
    zero, like grown weights in RigL; and nothing is known of the gradient at an
    inactive block.

    Attributes:
        layer: The layer.
        attribute: "kernel" or "recurrent_kernel".
        kernel: Trainable Keras variable [C, k, rows, cols].
        block_index: int32 variable [C, k], the block of inputs of each stored block.
        mask_scores: float32 variable [R, C], one score for each block.
        pattern: `Block(rows, cols)`.
        sparsity: Wanted share of zeros, in [0, 1).
        matrix_shape: The dense shape (inputs, outputs).
    """

    layer: keras.layers.Layer
    attribute: str
    kernel: keras.Variable
    block_index: keras.Variable
    mask_scores: keras.Variable
    pattern: patterns.Block
    sparsity: float
    matrix_shape: tuple[int, int]
    stores_inactive = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The dense shape (inputs, outputs)."""
        return tuple(self.matrix_shape)

    @property
    def choice(self) -> tuple[keras.Variable, keras.Variable]:
        """The index of the stored blocks and the scores of all."""
        return self.block_index, self.mask_scores

    def deployed_nnz(self) -> int:
        """Return the number of stored weights, which never changes."""
        return self.nnz

    def deployed_mask(self) -> Any:
        """Return the deployed unit mask, boolean [R, C]."""
        return self.stored_units()

    @property
    def unit_count(self):
        """Number of stored blocks, k * C."""
        return math.prod(self.block_index.shape)

    @property
    def nnz(self):
        """Exact number of stored weights."""
        return math.prod(self.kernel.shape)

    @property
    def rows(self):
        """R, the number of blocks of inputs."""
        return self.mask_scores.shape[0]

    def decode(self, scores, count=None):
        """Turn scores [R, C] into booleans with the k best of each column true.

        Args:
            scores: float32 tensor [R, C].
            count: Not used, for a layer stores k blocks of each column at all times.
        """
        return index_ops.top_k_in_columns(scores, self.block_index.shape[1])

    def member_values(self, value, units):
        """Return what a member reads in place of the stored kernel.

        Blocks that the member uses keep their place, so gradients come back in the
        layout of the stored kernel. A block that it uses but that is not stored has
        weight zero and needs no place: the member's outputs are the same without it.

        Args:
            value: Tensor [C, k, rows, cols], the stored kernel.
            units: Boolean [R, C], the member's mask, or None for the deployed one.

        Returns:
            (effective, overrides): the member's kernel, of the shape of `value`, and
            the list of (variable, tensor) that it must see besides, here empty.
        """
        if units is None:
            return value, []
        return tf.where(self.active(units), value, tf.zeros_like(value)), []

    def active(self, units):
        """Return [C, k, 1, 1]: the stored blocks that a member's gradient may reach."""
        index = self._index()
        if units is None:
            return tf.ones([*index.shape, 1, 1], tf.bool)
        return index_ops.is_active(units, index)[:, :, None, None]

    def unit_gradient(self, gradient, value, units):
        """Return dL/dm [R, C] as far as it is known: sum of gradient * value.

        Args:
            gradient: Tensor [C, k, rows, cols], the member's gradient.
            value: The stored kernel.
            units: The member's mask [R, C], or None.

        Returns:
            float32 [R, C]; 0 for blocks that are not stored or not used.
        """
        product = tf.cast(gradient, tf.float32) * tf.cast(value, tf.float32)
        product = tf.where(self.active(units), product, 0.0)
        total = tf.reduce_sum(product, axis=[2, 3])
        return index_ops.spread(total, self._index(), self.rows)

    def unit_magnitude(self, value):
        """Return the sum of |value| over each block [R, C]; 0 where none is stored."""
        total = tf.reduce_sum(tf.abs(tf.cast(value, tf.float32)), axis=[2, 3])
        return index_ops.spread(total, self._index(), self.rows)

    def deploy(self, scores, units, slots=()):
        """Return the assignments that make a unit mask the deployed one.

        Args:
            scores: float32 [R, C], the new scores.
            units: Boolean [R, C] with k true in each column, usually `decode(scores)`.
            slots: Variables of the kernel's shape that belong to it, such as an
                optimizer's moments.

        Returns:
            (assignments, flipped): list of (variable, tensor), and how many weights
            of the dense matrix went in or out, float32. Where a place gets another
            block, kernel and slots become zero; a kernel with a constraint keeps to
            it without the block that left.
        """
        index, kept = index_ops.place(self._index(), units)
        stays = kept[:, :, None, None]
        assignments = [(self.mask_scores, scores), (self.block_index, index)]
        for variable in (self.kernel, *slots):
            value = tf.convert_to_tensor(variable.value)
            value = tf.where(stays, value, tf.zeros_like(value))
            if variable is self.kernel and self.kernel.constraint is not None:
                bounded = self.kernel.constraint(value)
                value = tf.where(tf.reduce_all(kept), value, bounded)
            assignments.append((variable, value))
        left = tf.reduce_sum(tf.cast(tf.logical_not(kept), tf.float32))
        return assignments, 2.0 * left * (self.pattern.rows * self.pattern.cols)

    def stored_units(self):
        """Return the deployed unit mask, boolean [R, C]."""
        return index_ops.is_stored(self._index(), self.rows)

    def effective_value(self):
        """Return the dense matrix (inputs, outputs): only for what fits in memory."""
        value = tf.convert_to_tensor(self.kernel.value)
        return block_sparse.to_dense(value, self._index(), self.rows)

    def check_loaded(self, store: Any) -> None:
        """Refuse a file with other blocks: their number, size, or inputs.

        Raises:
            ValueError: If it is one.
        """
        shape, own = tuple(store[self.kernel.name].shape), tuple(self.kernel.shape)
        rows = store[self.mask_scores.name].shape[0]
        if (shape, rows) != (own, self.rows):
            raise ValueError(
                f"The weights of {self.name!r} have {_blocks(shape, rows)}; this layer "
                f"has {_blocks(own, self.rows)}, a sparsity of {self.sparsity:.4g}. "
                "Load them into a layer of the same inputs, `sparsity` and "
                f"`block_size`. Received: shape={shape} of {rows} rows of blocks, "
                f"expected {own} of {self.rows}"
            )

    def _index(self):
        return tf.convert_to_tensor(self.block_index.value)


def _blocks(shape, grid_rows):
    columns, count, rows, cols = shape
    return (
        f"{count} blocks of {rows} x {cols} in each of {columns} columns, "
        f"of {grid_rows} possible"
    )


class InitialIndex:
    """Initializer of an index: the best of the first scores, drawn from their seed.

    An initializer and not an assignment, because Keras defers initialization when a
    layer is built in a symbolic call.
    """

    def __init__(self, scores_shape, seed):
        self.scores = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
        self.scores_shape = tuple(scores_shape)

    def __call__(self, shape, dtype=None):
        units = index_ops.top_k_in_columns(self.scores(self.scores_shape), shape[1])
        return tf.cast(index_ops.positions_of(units, shape[1]), dtype or tf.int32)


class BlockInitializer:
    """Initializer of stored blocks that counts only connections that exist.

    The initializer draws the matrix of the stored weights, k * rows inputs by all
    outputs. Its fan-in is then k * rows; the fan-out is corrected to outputs * k / R,
    so that glorot, he and lecun keep the scale of activations and gradients. The rows
    of `Orthogonal` are shorter than in the dense layer; its gain makes up for that.
    Classes derived from these are corrected alike; all others draw as they are.

    Args:
        initializer: Keras initializer of a matrix.
        inputs: Inputs of the dense matrix.
    """

    def __init__(self, initializer, inputs):
        self.initializer, self.inputs = initializer, inputs

    def __call__(self, shape, dtype=None):
        columns, count, rows, cols = shape
        matrix_shape = (count * rows, columns * cols)
        matrix = self._corrected(*matrix_shape)(matrix_shape, dtype=dtype)
        return to_blocks(matrix, rows, cols)

    def _corrected(self, fan_in, outputs):
        """Return the initializer with the scale of the connections that exist."""
        base, inputs = self.initializer, self.inputs
        if isinstance(base, keras.initializers.VarianceScaling):
            fan_out = outputs * fan_in / inputs
            ratio = {
                "fan_in": 1.0,
                "fan_out": outputs / fan_out,
                "fan_avg": (fan_in + outputs) / (fan_in + fan_out),
            }[base.mode]
            return _changed(base, scale=base.scale * ratio)
        if isinstance(base, keras.initializers.Orthogonal):
            ratio = min(1.0, inputs / outputs) / min(1.0, fan_in / outputs)
            return _changed(base, gain=base.gain * ratio**0.5)
        return base


def _changed(initializer, **attributes):
    """Return a copy, of the user's own class if it is one, with other attributes."""
    changed = copy.copy(initializer)
    for name, value in attributes.items():
        setattr(changed, name, value)
    return changed


class BlockConstraint:
    """A constraint of the kernel's columns, without the zeros, on stored blocks.

    Raises:
        ValueError: If it goes along rows: their blocks are in as many places as there
            are columns.
    """

    def __init__(self, constraint):
        axes = getattr(constraint, "axis", 0)
        axes = set(axes) if isinstance(axes, (list, tuple)) else {axes}
        if not axes & {0, -2}:
            raise ValueError(
                "A constraint of a block-sparse kernel must go along its inputs, "
                "axis=0, for a column is stored in one piece and a row is not. "
                f"Received: {type(constraint).__name__} with axis={constraint.axis}"
            )
        self.constraint = constraint

    def __call__(self, blocks):
        blocks = keras.ops.convert_to_tensor(blocks)
        _, _, rows, cols = blocks.shape
        return to_blocks(self.constraint(to_matrix(blocks)), rows, cols)


def to_matrix(blocks):
    """Return stored blocks [C, k, rows, cols] as a matrix (k * rows, C * cols)."""
    columns, count, rows, cols = blocks.shape
    return tf.reshape(
        tf.transpose(blocks, [1, 2, 0, 3]), [count * rows, columns * cols]
    )


def to_blocks(matrix, rows, cols):
    """Return what `to_matrix` was given."""
    count, columns = matrix.shape[0] // rows, matrix.shape[1] // cols
    grid = tf.reshape(matrix, [count, rows, columns, cols])
    return tf.transpose(grid, [2, 0, 1, 3])
