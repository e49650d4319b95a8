"""A GRU that stores and multiplies only the active blocks of its two kernels."""

import inspect
from typing import Any

import keras
from keras import ops

from keras_es import _compat
from keras_es.layers.block_sparse import BlockSparseLayer
from keras_es.layers.sparse_layer import register, twin_signature


@register
class BlockSparseGRUCell(BlockSparseLayer, keras.layers.GRUCell):
    """`keras.layers.GRUCell` with a block-sparse kernel and recurrent kernel.

    The kernel (inputs, 3 * units) and the recurrent kernel (units, 3 * units) hold the
    gates z, r and h side by side, each of whole columns of blocks. See
    `BlockSparseDense` for what is stored and how it is initialized, and
    `BlockSparseLayer` for the arguments.

    Example:

    >>> cell = BlockSparseGRUCell(64, sparsity=0.75, block_size=16)
    >>> layer = keras.layers.RNN(cell)
    >>> layer(np.zeros((2, 5, 64), "float32")).shape
    TensorShape([2, 64])
    """

    block_sparse_attributes = ("kernel", "recurrent_kernel")
    gates = 3

    def build(self, input_shape):
        """Create blocks, indices and scores of both kernels, and the bias."""
        outputs = 3 * self.units
        self.kernel = self.add_blocks(
            "kernel", input_shape[-1], outputs, self.kernel_initializer,
            self.kernel_regularizer, self.kernel_constraint,
        )  # fmt: skip
        self.recurrent_kernel = self.add_blocks(
            "recurrent_kernel", self.units, outputs, self.recurrent_initializer,
            self.recurrent_regularizer, self.recurrent_constraint,
        )  # fmt: skip
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(2, outputs) if self.reset_after else (outputs,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.built = True

    def call(self, inputs, states, training=False):
        nested = keras.tree.is_nested(states)
        before = states[0] if nested else states
        xs, hs = self._dropped(inputs, before, training)
        bias, recurrent_bias = self._biases()
        x_z, x_r, x_h = self._gates("kernel", xs, bias)
        if self.reset_after:
            h_z, h_r, h_h = self._gates("recurrent_kernel", hs, recurrent_bias)
        else:
            h_z, h_r = self._gates("recurrent_kernel", hs[:2])
        z = self.recurrent_activation(x_z + h_z)
        r = self.recurrent_activation(x_r + h_r)
        if self.reset_after:
            h_h = r * h_h
        else:
            h_h = self.block_product(r * hs[2], "recurrent_kernel", 2 / 3, 1.0)
        h = z * before + (1 - z) * self.activation(x_h + h_h)
        return h, [h] if nested else h

    def _dropped(self, inputs, state, training):
        """Return the inputs and states of the three gates, after dropout."""
        xs, hs = [inputs] * 3, [state] * 3
        if training and 0.0 < self.dropout < 1.0:
            masks = self.get_dropout_mask(inputs)
            if isinstance(masks, (list, tuple)):
                xs = [inputs * mask for mask in masks]
            else:
                xs = [inputs * masks] * 3
        if training and 0.0 < self.recurrent_dropout < 1.0:
            hs = [state * mask for mask in self.get_recurrent_dropout_mask(state)]
        return xs, hs

    def _biases(self):
        if self.bias is None:
            return None, None
        bias = ops.convert_to_tensor(self.bias)
        return (bias[0], bias[1]) if self.reset_after else (bias, None)

    def _gates(self, name, xs, bias=None):
        """Return the products of the first gates, in one where the input is one."""
        count = len(xs)
        if all(x is xs[0] for x in xs):
            product = self.block_product(xs[0], name, 0.0, count / 3)
            product = product if bias is None else ops.add(product, bias)
            return ops.split(product, count, axis=-1)
        products = [
            self.block_product(x, name, i / 3, (i + 1) / 3) for i, x in enumerate(xs)
        ]
        if bias is None:
            return products
        return [p + b for p, b in zip(products, ops.split(bias, 3))]


@register
class BlockSparseGRU(BlockSparseLayer, keras.layers.GRU):
    """`keras.layers.GRU` whose kernel and recurrent kernel are block-sparse.

    The cell is a `BlockSparseGRUCell`. cuDNN is never used: it wants dense kernels.

    Args:
        units: Positive integer, a multiple of the rows and of the columns of a block.
        activation: As in `keras.layers.GRU`, like all arguments not named here.
        sparsity: Share of zeros in [0, 1), or a dict with the keys "kernel" and
            "recurrent_kernel".
        block_size: (rows, cols), an integer for both, or such a dict.
        mask_seed: Integer seed of the first scores; default from Keras's global seed.

    Raises:
        ValueError: If the blocks do not divide the kernels.

    Example:

    >>> layer = BlockSparseGRU(64, sparsity=0.75, block_size=(16, 32))
    >>> layer(np.zeros((2, 5, 128), "float32")).shape
    TensorShape([2, 64])
    >>> [weight.nnz for weight in layer.cell.masked_weights]
    [6144, 3072]
    """

    block_sparse_attributes: tuple[str, ...] = ()
    __signature__ = twin_signature(keras.layers.GRU, BlockSparseLayer.mask_arguments)

    def __init__(
        self, *args, sparsity=None, block_size=(32, 32), mask_seed=None, **kwargs
    ):
        # Not the constructor of the plain layer: it would make a plain cell, and
        # Keras binds `build` to the class that a layer was made with.
        cell_arguments, arguments = _split_arguments(args, kwargs)
        cell = BlockSparseGRUCell(
            **cell_arguments,
            sparsity=sparsity,
            block_size=block_size,
            mask_seed=mask_seed,
        )
        keras.layers.RNN.__init__(self, cell, **arguments)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.use_cudnn: bool | str = False

    def block_config(self):
        """Return the arguments that make the blocks of the cell."""
        return self.cell.block_config()

    def become_plain(self):
        """Turn into the plain layer, in place, with zeros baked in."""
        self.cell.become_plain()
        plain: Any = self.plain_class()
        self.__class__ = plain
        _compat.rebind_methods(self)
        self.use_cudnn = "auto"


def _split_arguments(args, kwargs):
    """Return the arguments of `keras.layers.GRU` as (those of the cell, the rest)."""
    signature = inspect.signature(keras.layers.GRU.__init__)
    bound = signature.bind(None, *args, **kwargs).arguments
    given = {**bound, **bound.pop("kwargs", {})}
    given.pop("self"), given.pop("kwargs", None), given.pop("use_cudnn", None)
    names = {*inspect.signature(keras.layers.GRUCell.__init__).parameters}
    cell = {name: value for name, value in given.items() if name in names}
    rest = {name: value for name, value in given.items() if name not in names}
    shared = {name: rest[name] for name in ("dtype", "trainable") if name in rest}
    if "implementation" in rest:
        shared["implementation"] = rest.pop("implementation")
    return {"name": "gru_cell", **cell, **shared}, rest
