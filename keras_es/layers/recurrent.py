"""Masked recurrent layers: kernel and recurrent kernel of the cell are masked."""

import contextlib

import keras

from keras_es import _compat
from keras_es.layers.masked import MaskedLayer
from keras_es.layers.sparse_layer import register


class MaskedCell(MaskedLayer):
    """Mixin of masked recurrent cells."""

    masked_attributes = ("kernel", "recurrent_kernel")

    @contextlib.contextmanager
    def hold_effective_weights(self):
        """Compute the effective weights once for all time steps of a layer call."""
        # Held already where a step of the loop has weights of its own.
        before = self.__dict__.pop("_held_weights", None)
        self.__dict__["_held_weights"] = {
            m.attribute: getattr(self, m.attribute) for m in self.masked_weights
        }
        try:
            yield
        finally:
            self.__dict__.pop("_held_weights")
            if before is not None:
                self.__dict__["_held_weights"] = before


@register
class MaskedSimpleRNNCell(MaskedCell, keras.layers.SimpleRNNCell):
    """`keras.layers.SimpleRNNCell` with masked kernels."""


@register
class MaskedGRUCell(MaskedCell, keras.layers.GRUCell):
    """`keras.layers.GRUCell` with masked kernels of 3 * units columns."""


@register
class MaskedLSTMCell(MaskedCell, keras.layers.LSTMCell):
    """`keras.layers.LSTMCell` with masked kernels of 4 * units columns."""


class MaskedRNN(MaskedLayer):
    """Mixin of masked recurrent layers: the cell holds the masks.

    cuDNN kernels are never asked for: they read the latent weights and switch XLA
    off with no more than a warning.
    """

    masked_attributes: tuple[str, ...] = ()
    cell_class: type[MaskedCell]

    def _configure_masks(self, sparsity, pattern, mask_seed):
        self.use_cudnn: bool | str = False
        self.cell.__class__ = self.cell_class
        _compat.rebind_methods(self.cell)
        self.cell._configure_masks(sparsity, pattern, mask_seed)

    def _build_masks(self):
        self.cell._build_masks()

    def _discard_masks(self):
        self.cell._discard_masks()
        self.cell.__class__ = self.cell_class.plain_class()
        _compat.rebind_methods(self.cell)
        self.use_cudnn = "auto"

    def mask_config(self):
        """Return the arguments that make the masks of the cell."""
        return self.cell.mask_config()

    def build(self, sequences_shape, initial_state_shape=None):
        """Build the plain layer, then masks and scores of the cell."""
        super(MaskedLayer, self).build(sequences_shape, initial_state_shape)
        self._build_masks()

    def call(self, sequences, initial_state=None, mask=None, training=False):
        """Run the plain layer on effective weights computed once."""
        with self.cell.hold_effective_weights():
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )


@register
class MaskedSimpleRNN(MaskedRNN, keras.layers.SimpleRNN):
    """`keras.layers.SimpleRNN` whose cell has masked kernels."""

    cell_class = MaskedSimpleRNNCell


@register
class MaskedGRU(MaskedRNN, keras.layers.GRU):
    """`keras.layers.GRU` whose cell has masked kernels."""

    cell_class = MaskedGRUCell


@register
class MaskedLSTM(MaskedRNN, keras.layers.LSTM):
    """`keras.layers.LSTM` whose cell has masked kernels."""

    cell_class = MaskedLSTMCell
