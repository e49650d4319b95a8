"""Layers that store and multiply only the active blocks of their weights."""

from typing import Any

import keras
from keras import ops

from keras_es import _compat, patterns
from keras_es._arguments import is_integer
from keras_es.layers.block_sparse_weight import (
    BlockConstraint,
    BlockInitializer,
    BlockSparseWeight,
    InitialIndex,
)
from keras_es.layers.brought import Count
from keras_es.layers.sparse_layer import (
    SparseLayer,
    check_sparsity,
    per_weight,
    register,
)
from keras_es.ops.block_sparse import block_matmul


class BlockSparseLayer(SparseLayer):
    """Mixin of layers whose weights are block-sparse (see `BlockSparseWeight`).

    Put it before the plain layer, as in `class BlockSparseDense(BlockSparseLayer,
    keras.layers.Dense)`, and make the weights in `build` by `add_blocks`.

    Args:
        *args: Arguments of the plain layer.
        sparsity: Share of zeros in [0, 1), or a dict from weight name to it. Each
            column of R blocks keeps max(1, round((1 - sparsity) R)) of them.
        block_size: (rows, cols) of a block, or an integer for both, or a dict from
            weight name to either. Rows must divide the inputs, cols the outputs.
        mask_seed: Integer seed of the first scores; default from Keras's global seed.
        **kwargs: Arguments of the plain layer.
    """

    family = "Block-sparse"
    mask_arguments = {"sparsity": None, "block_size": (32, 32), "mask_seed": None}
    block_sparse_attributes: tuple[str, ...] = ("kernel",)

    def __init__(
        self, *args, sparsity=None, block_size=(32, 32), mask_seed=None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self._configure_blocks(sparsity, block_size, mask_seed)

    def _configure_blocks(self, sparsity, block_size, mask_seed):
        names, where = self.block_sparse_attributes, f"layer {self.name!r}"
        shares = per_weight(sparsity, names, "sparsity", self.name)
        sizes = per_weight(block_size, names, "block_size", self.name)
        # Straight into __dict__: neither Keras nor TensorFlow shall wrap and track it.
        self.__dict__["block_sparsities"] = {
            name: check_sparsity(share, where) for name, share in shares.items()
        }
        self.__dict__["block_sizes"] = {
            name: check_block_size(size, where) for name, size in sizes.items()
        }
        self._set_mask_seed(mask_seed)

    def add_blocks(self, name, inputs, outputs, initializer, regularizer, constraint):
        """Create a block-sparse weight and return its kernel variable.

        Args:
            name: One of `block_sparse_attributes`.
            inputs: Inputs of the dense matrix.
            outputs: Its outputs.
            initializer: Initializer of the matrix (see `BlockInitializer`).
            regularizer: Regularizer of the stored weights, or None.
            constraint: Constraint of the matrix, or None.

        Raises:
            ValueError: If the blocks do not divide the matrix, its inputs are not
                known, or the layer's `dtype` is quantized.
        """
        self.refuse_quantized()
        rows, cols = self.block_sizes[name]
        self._check_division(name, inputs, outputs)
        grid, sparsity = (inputs // rows, outputs // cols), self.block_sparsities[name]
        count = max(1, round((1.0 - sparsity) * grid[0]))
        kernel = self.add_weight(
            name=name,
            shape=(grid[1], count, rows, cols),
            initializer=BlockInitializer(initializer, inputs),
            regularizer=regularizer,
            constraint=None if constraint is None else BlockConstraint(constraint),
        )
        scores, index = self._add_choice(name, grid, count)
        weight = BlockSparseWeight(
            self, name, kernel, index, scores, patterns.Block(rows, cols), sparsity,
            (inputs, outputs),
        )  # fmt: skip
        _compat.track_in_checkpoints(self, Count(weight), weight.count_name)
        self.__dict__["_masked_weights"] = (*self.masked_weights, weight)
        # As Keras tags variables (`overwrite_with_gradient`): an optimizer is built
        # with variables only and finds their masks here.
        kernel.masked_weight = weight
        return kernel

    def _add_choice(self, name, grid, count):
        """Create the scores of all blocks and the index of the stored ones."""
        prefix = name.removesuffix("kernel")
        seed = self.mask_seed + 7919 * len(self.masked_weights)
        initial = InitialIndex(grid, seed)
        fixed = {
            "trainable": False,
            "autocast": False,
            "aggregation": "only_first_replica",
        }
        scores = self.add_weight(
            name=f"{prefix}mask_scores",
            shape=grid,
            dtype="float32",
            initializer=initial.scores,
            **fixed,
        )
        index = self.add_weight(
            name=f"{prefix}block_index",
            shape=(grid[1], count),
            dtype="int32",
            initializer=initial,
            **fixed,
        )
        for variable in (scores, index):
            _compat.track_in_checkpoints(self, variable)
        return scores, index

    def _check_division(self, name, inputs, outputs):
        rows, cols = self.block_sizes[name]
        gates = getattr(self, "gates", 1)
        if inputs is None:
            raise ValueError(
                f"Layer {self.path or self.name!r}: the last axis of the inputs must "
                f"have a known size, a multiple of {rows}, the rows of a block of "
                f"{name!r}. Give it, as in `keras.Input((n,))`. Received: "
                f"inputs={inputs}"
            )
        if inputs % rows or outputs % (gates * cols):
            each = "the outputs" if gates == 1 else f"each of the {gates} gates"
            raise ValueError(
                f"Layer {self.path or self.name!r}: blocks of {rows} x {cols} do not "
                f"divide the weight {name!r} of shape ({inputs}, {outputs}): {rows} "
                f"must divide the inputs and {cols} {each}. Choose another block "
                f"size. Received: block_size={(rows, cols)}"
            )

    def block_product(self, x, name, first=0.0, last=1.0, training=False):
        """Multiply x by a weight, or by a share of its columns of blocks.

        Args:
            x: Tensor [..., inputs].
            name: One of `block_sparse_attributes`.
            first: Where the columns begin, as a share of all.
            last: Where they end.
            training: Whether the layer is trained (see `block_matmul`).
        """
        weight: Any = next(w for w in self.masked_weights if w.attribute == name)
        blocks = ops.convert_to_tensor(weight.kernel)
        index = ops.convert_to_tensor(weight.block_index)
        if (first, last) != (0.0, 1.0):
            begin, end = (round(share * index.shape[0]) for share in (first, last))
            blocks, index = blocks[begin:end], index[begin:end]
        # As the product of a plain layer does: integers and sparse tensors too.
        x = ops.convert_to_tensor(x, sparse=False)
        dtype = keras.backend.result_type(x.dtype, blocks.dtype)
        x, blocks = ops.cast(x, dtype), ops.cast(blocks, dtype)
        return block_matmul(x, blocks, index, bool(training))

    def become_plain(self):
        """Turn into the plain layer, in place, with zeros baked in."""
        dense = {w.attribute: w.effective_value() for w in self.masked_weights}
        inputs = self.masked_weights[0].matrix_shape[0]
        bias = getattr(self, "bias", None)
        bias = None if bias is None else ops.convert_to_tensor(bias.value)
        _compat.discard_weights(self, _compat.own_variables(self))
        names = [w.count_name for w in self.masked_weights]
        _compat.untrack_in_checkpoints(self, names)
        for name in ("block_sparsities", "block_sizes", "mask_seed", "_masked_weights"):
            self.__dict__.pop(name, None)
        plain: Any = self.plain_class()
        self.__class__ = plain
        _compat.rebind_methods(self)
        with _compat.add_weights_to_built_layer(self):
            # Not `self.build`, which would give the layer a new path.
            plain.build(self, (None, inputs))
        for name, value in dense.items():
            getattr(self, name).assign(value)
        if bias is not None:
            self.bias.assign(bias)

    def block_config(self):
        """Return the arguments that make the blocks, by weight."""
        return {
            "sparsity": dict(self.block_sparsities),
            "block_size": dict(self.block_sizes),
            "mask_seed": self.mask_seed,
        }

    def get_config(self):
        """Return the plain layer's config and the arguments of the blocks."""
        return {**super().get_config(), **self.block_config()}


def check_block_size(block_size, where):
    """Return (rows, cols).

    Raises:
        ValueError: If it is neither a positive integer nor a pair of them.
    """
    pair = (block_size, block_size) if is_integer(block_size) else block_size
    fine = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not fine or not all(is_integer(n) and n >= 1 for n in pair):
        raise ValueError(
            f"`block_size` of {where} must be a positive integer or a pair (rows, "
            f"cols) of them. Received: block_size={block_size!r}"
        )
    return int(pair[0]), int(pair[1])


@register
class BlockSparseDense(BlockSparseLayer, keras.layers.Dense):
    """`keras.layers.Dense` that stores and multiplies only its active blocks.

    y = activation(x W + b), where W of shape (inputs, units) is divided into blocks,
    and of each column of R = inputs / rows blocks the k = max(1, round((1 -
    sparsity) R)) with the best scores exist. Weights, gradients, optimizer slots and
    work are k/R of the dense layer's; nothing of the dense size is ever made. Only
    the scores, one number for each block, cover the whole matrix.

    Initializers see the connections that exist: fan-in k * rows and fan-out units *
    k / R, so that glorot and its kin keep the scale of activations. Regularizers see
    the stored weights. Blocks that an optimizer of `keras_es.optimizers` swaps in
    start at zero. The default block of 32 x 32 suits CPUs; 64 x 64 is as fast, and
    smaller blocks spend more of their time in gathering inputs.

    Args:
        units: Positive integer, a multiple of the columns of a block.
        activation: As in `keras.layers.Dense`, like all arguments not named here.
        sparsity: Share of zeros in [0, 1).
        block_size: (rows, cols) or an integer for both; rows must divide the inputs.
        mask_seed: Integer seed of the first scores; default from Keras's global seed.

    Raises:
        ValueError: If the blocks do not divide the matrix, or for `lora_rank` and a
            quantized `dtype`, which need a dense kernel.

    Example:

    >>> layer = BlockSparseDense(128, sparsity=0.9, block_size=16)
    >>> layer(np.zeros((2, 320), "float32")).shape
    TensorShape([2, 128])
    >>> tuple(layer.kernel.shape), layer.masked_weights[0].nnz
    ((8, 2, 16, 16), 4096)

    References:
        Gray, Radford and Kingma 2017, "GPU Kernels for Block-Sparse Weights".
    """

    def build(self, input_shape):
        """Create the blocks, their index and scores, and the bias."""
        inputs = input_shape[-1]
        self._kernel = self.add_blocks(
            "kernel", inputs, self.units, self.kernel_initializer,
            self.kernel_regularizer, self.kernel_constraint,
        )  # fmt: skip
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if getattr(self, "lora_rank", None):
            self.enable_lora(self.lora_rank)
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        self.built = True

    @property
    def kernel(self):
        """The stored blocks, a variable [C, k, rows, cols]."""
        if not self.built:
            raise AttributeError("You must build the layer before accessing `kernel`.")
        return self._kernel

    def call(self, inputs, training=None):
        x = self.block_product(inputs, "kernel", training=training)
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)
