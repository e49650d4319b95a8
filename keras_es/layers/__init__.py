"""Masked twins of Keras layers."""

from keras_es.layers.block_sparse import BlockSparseDense, BlockSparseLayer
from keras_es.layers.block_sparse_gru import BlockSparseGRU, BlockSparseGRUCell
from keras_es.layers.block_sparse_weight import BlockSparseWeight
from keras_es.layers.embedding import REVERSIBLE, MaskedEmbedding
from keras_es.layers.feedforward import (
    MaskedConv1D,
    MaskedConv2D,
    MaskedDense,
    MaskedDepthwiseConv2D,
    MaskedEinsumDense,
)
from keras_es.layers.masked import MaskedLayer
from keras_es.layers.masked_weight import MaskedWeight
from keras_es.layers.recurrent import (
    MaskedGRU,
    MaskedGRUCell,
    MaskedLSTM,
    MaskedLSTMCell,
    MaskedSimpleRNN,
    MaskedSimpleRNNCell,
)

_twins: tuple[type[MaskedLayer], ...] = (
    MaskedDense,
    MaskedEinsumDense,
    MaskedConv1D,
    MaskedConv2D,
    MaskedDepthwiseConv2D,
    MaskedEmbedding,
    *REVERSIBLE,
    MaskedSimpleRNN,
    MaskedGRU,
    MaskedLSTM,
)
TWINS = {twin.plain_class(): twin for twin in _twins}
"""Plain Keras class -> its masked twin."""

CELLS = (MaskedSimpleRNNCell, MaskedGRUCell, MaskedLSTMCell)
"""Masked cells: swapped in with their layer, or used by hand in `keras.layers.RNN`."""

BLOCK_SPARSE = (BlockSparseDense, BlockSparseGRU, BlockSparseGRUCell)
"""Layers that store only the active blocks of their weights."""

__all__ = [
    "BLOCK_SPARSE",
    "CELLS",
    "TWINS",
    "BlockSparseDense",
    "BlockSparseGRU",
    "BlockSparseGRUCell",
    "BlockSparseLayer",
    "BlockSparseWeight",
    "MaskedConv1D",
    "MaskedConv2D",
    "MaskedDense",
    "MaskedDepthwiseConv2D",
    "MaskedEinsumDense",
    "MaskedEmbedding",
    "MaskedGRU",
    "MaskedGRUCell",
    "MaskedLSTM",
    "MaskedLSTMCell",
    "MaskedLayer",
    "MaskedSimpleRNN",
    "MaskedSimpleRNNCell",
    "MaskedWeight",
]

if REVERSIBLE:  # where Keras has the plain layer
    from keras_es.layers.embedding import (
        MaskedReversibleEmbedding as MaskedReversibleEmbedding,
    )

    __all__ += ["MaskedReversibleEmbedding"]
