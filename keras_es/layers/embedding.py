"""Masked twins of embedding tables."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_es import _compat
from keras_es.layers.masked import MaskedLayer
from keras_es.layers.masked_weight import apply_mask
from keras_es.layers.sparse_layer import register
from keras_es.patterns import Rows


class MaskedTable(MaskedLayer):
    """Mixin of masked embedding tables: a row of the vocabulary is one unit."""

    masked_attributes = ("embeddings",)
    default_pattern = Rows()
    only_if_asked = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.built:  # Keras builds it at once where it is given `weights`.
            self._build_masks()

    def build(self, input_shape: Any = None) -> None:
        """Build the plain layer, then the mask of the table and its scores."""
        super(MaskedLayer, self).build(input_shape)
        if "mask_patterns" in self.__dict__:
            self._build_masks()

    @contextlib.contextmanager
    def _latent_table(self):
        self.__dict__["_held_weights"] = {"embeddings": self.latent("embeddings")}
        try:
            yield
        finally:
            self.__dict__.pop("_held_weights")

    def _look_up(self, inputs, **kwargs):
        """Look rows up, then mask them: the gradient stays one of some rows."""
        inputs = ops.cast(inputs, _index_dtype(inputs))
        with self._latent_table():
            rows = super().call(inputs, **kwargs)
        (masked,) = self.masked_weights
        kernel_mask, _ = masked.choice
        kept = apply_mask(rows, ops.take(kernel_mask, inputs, axis=0))
        # Where the plain layer marks time steps by itself, on what it returns.
        _compat.set_keras_mask(kept, _compat.get_keras_mask(rows))
        return kept


def _index_dtype(inputs):
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    return dtype if dtype in ("int32", "int64") else "int32"


@register
class MaskedEmbedding(MaskedTable, keras.layers.Embedding):
    """`keras.layers.Embedding` with a masked table of shape (input_dim, output_dim).

    Word i is looked up as E[i] * M[i]. By default whole rows are masked, so that a word
    that is masked out is the vector 0, and a table of V words at sparsity s keeps
    round((1 - s) V) of them. Takes all arguments of the plain layer and `sparsity`,
    `pattern`, `mask_seed` (see `MaskedLayer`); the default pattern is `Rows()`.

    `keras_es.sparsify` swaps it in if `include_embeddings=True`.

    Example:

    >>> layer = MaskedEmbedding(1000, 16, sparsity=0.75)
    >>> layer.build()
    >>> layer.masked_weights[0].nnz // 16
    250
    """

    def call(self, inputs):
        return self._look_up(inputs)


REVERSIBLE: tuple[type[MaskedTable], ...] = ()

if hasattr(keras.layers, "ReversibleEmbedding"):  # Keras 3.13 and later

    @register
    class MaskedReversibleEmbedding(MaskedTable, keras.layers.ReversibleEmbedding):
        """`keras.layers.ReversibleEmbedding` with a masked table.

        Both ways read the masked table if they are tied: a word that is masked out is
        the vector 0, and its logit is 0. The table of the way back of a layer with
        `tie_weights=False` stays dense.

        Takes all arguments of the plain layer and `sparsity`, `pattern`, `mask_seed`
        (see `MaskedLayer`); the default pattern is `Rows()`. It stands for
        `keras_hub.layers.ReversibleEmbedding` as well, which is the same.

        Example:

        >>> layer = MaskedReversibleEmbedding(8, 4, sparsity=0.5)
        >>> layer(layer(np.array([[1, 2]])), reverse=True).shape
        TensorShape([1, 2, 8])
        """

        def call(self, inputs, reverse=False):
            if reverse:
                return super().call(inputs, reverse=True)
            return self._look_up(inputs)

    REVERSIBLE = (MaskedReversibleEmbedding,)
