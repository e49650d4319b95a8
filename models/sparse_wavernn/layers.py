"""The layers of `SparseWaveRNN` that Keras does not have."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_es.layers import BlockSparseDense
from models.sparse_wavernn import recurrence
from models.sparse_wavernn.bits import SILENCE, scaled, split

register = keras.saving.register_keras_serializable(package="keras_es_models")

REACH = 2
"""Frames on either side that a frame of the conditioning network looks at."""

MEL_MEAN, MEL_SCALE = -5.75, 3.5
"""Log-mel frames lie in about [-11.5, 0]; the network is given them in [-2, 2]."""

COARSE_SCALE = 128.0
"""Limit of the first weights of c, so that one of its 256 steps moves a gate by up to
1. Speech is within some hundredths of full scale: with the usual weights, of less than
0.1, gates hardly hear it, and what is spoken stays noise for thousands of steps."""


def dense(units, name, activation=None, use_bias=True, sparsity=None, block_shape=None):
    """Return a dense layer, or one that stores only its active blocks."""
    arguments = {"activation": activation, "use_bias": use_bias, "name": name}
    if sparsity is None:
        return keras.layers.Dense(units, **arguments)
    return BlockSparseDense(
        units, sparsity=sparsity, block_size=block_shape, **arguments
    )


def dense_kernel(layer):
    """Return the kernel that a dense layer acts with: masked, stored in blocks or not.

    Blocks become a matrix once for a whole sequence: in training it is multiplied by
    thousands of times.
    """
    if isinstance(layer, BlockSparseDense):
        return layer.masked_weights[0].effective_value()
    return ops.convert_to_tensor(layer.kernel)


def upsampling(hop):
    """Return what frames i - 1, i and i + 1 weigh in the samples of frame i, [hop, 3].

    Samples lie between the middles of frames; weights are linear in between.
    """
    position = (np.arange(hop) + 0.5) / hop - 0.5
    before, after = np.maximum(-position, 0.0), np.maximum(position, 0.0)
    weights = np.stack([before, 1.0 - before - after, after], axis=1)
    return weights.astype("float32")


@register
class MelConditioning(keras.layers.Layer):
    """Frames to what they add to the gates, [batch, frames + 2, 3 * units].

    A convolution over five frames, one over single ones, and a projection to the
    gates. Convolutions are products with frames side by side, which XLA multiplies
    faster on CPUs than what it knows as a convolution.

    Args:
        units: Units of the recurrence.
        channels: Channels of the convolutions.
        **kwargs: As `keras.layers.Layer`.
    """

    def __init__(self, units, channels, **kwargs):
        super().__init__(**kwargs)
        self.units, self.channels = units, channels
        self.window = dense(channels, "window", "relu")
        self.mix = dense(channels, "mix", "relu")
        self.gates = dense(3 * units, "gates", use_bias=False)

    def build(self, mel_shape):
        self.window.build((None, None, (2 * REACH + 1) * mel_shape[-1]))
        self.mix.build((None, None, self.channels))
        self.gates.build((None, None, self.channels))
        self.built = True

    def call(self, mel):
        if mel.shape[1] is not None and mel.shape[1] <= 2 * (REACH + 1):
            raise ValueError(
                f"expected at least one frame with {REACH + 1} more on either side. "
                f"Received: mel of shape {tuple(mel.shape)}"
            )
        mel = (ops.cast(mel, self.compute_dtype) - MEL_MEAN) / MEL_SCALE
        frames = ops.shape(mel)[1] - 2 * REACH
        near = [mel[:, i : i + frames] for i in range(2 * REACH + 1)]
        return self.gates(self.mix(self.window(ops.concatenate(near, axis=-1))))

    def compute_output_shape(self, mel_shape):
        frames = mel_shape[1]
        frames = None if frames is None else frames - 2 * REACH
        return (mel_shape[0], frames, 3 * self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "channels": self.channels,
        }


def _of_coarse(shape, dtype=None):
    """Return first weights of c."""
    uniform = keras.initializers.RandomUniform(-COARSE_SCALE, COARSE_SCALE)
    return uniform(shape, dtype)


def _of_previous(shape, dtype=None):
    """Return first weights of c and f; those of f as usual, for most of it is noise."""
    rows = (1, shape[1])
    fine = keras.initializers.GlorotUniform()(rows, dtype)
    return ops.concatenate([_of_coarse(rows, dtype), fine], axis=0)


@register
class GateInputs(keras.layers.Layer):
    """What is added to the gates at each sample, [batch, T, 3 * units].

    x(t) = I [c(t - 1), f(t - 1), c(t)] + b + the conditioning at t, with c and f in
    [-1, 1]. The coarse half of each gate's units does not see c(t), which it is to
    tell: units of a gate are its coarse half, then its fine half.

    Args:
        units: Even number of units.
        hop: Samples of a frame.
        **kwargs: As `keras.layers.Layer`.
    """

    def __init__(self, units, hop, **kwargs):
        super().__init__(**kwargs)
        self.units, self.hop = units, hop

    def build(self, samples_shape, conditioning_shape):
        self.previous_kernel = self.add_weight(
            name="previous_kernel", shape=(2, 3 * self.units),
            initializer=_of_previous,
        )  # fmt: skip
        self.coarse_kernel = self.add_weight(
            name="coarse_kernel", shape=(3, self.units // 2), initializer=_of_coarse,
        )  # fmt: skip
        self.bias = self.add_weight(
            name="bias", shape=(3 * self.units,), initializer="zeros"
        )
        self.built = True

    def input_kernel(self):
        """Return I [3, 3 * units]: rows c(t - 1), f(t - 1), c(t)."""
        coarse = ops.convert_to_tensor(self.coarse_kernel)
        hidden = ops.zeros_like(coarse)
        row = ops.reshape(ops.concatenate([hidden, coarse], axis=1), (1, -1))
        return ops.concatenate([ops.convert_to_tensor(self.previous_kernel), row], 0)

    def call(self, samples, conditioning):
        self._check_lengths(tuple(samples.shape), tuple(conditioning.shape))
        samples = ops.cast(samples, "int32")
        before = ops.concatenate(
            [ops.full_like(samples[:, :1], SILENCE), samples[:, :-1]], axis=1
        )
        bits = ops.stack([*split(before), split(samples)[0]], axis=-1)
        x = ops.matmul(ops.cast(scaled(bits), self.compute_dtype), self.input_kernel())
        said = self._at_samples(conditioning, ops.shape(samples)[1])
        # Not by +, which would repeat what is one long.
        return tf.add_n([x + self.bias, said])

    def _check_lengths(self, samples, conditioning):
        """Refuse samples that are not those of the frames, as far as shapes are known.

        Args:
            samples: (batch, T).
            conditioning: (batch, frames + 2, 3 * units).
        """
        batch, frames, _ = conditioning
        count = None if frames is None else (frames - 2) * self.hop
        pairs = zip(samples, (batch, count))
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            known = None if frames is None else frames + 2 * REACH
            raise ValueError(
                f"expected {self.hop} samples for each frame, but for {REACH + 1} "
                f"frames on either side that have none. Received: samples of shape "
                f"{samples}, and {known} frames in a batch of {batch}"
            )

    def _at_samples(self, frames, count):
        weights = ops.cast(upsampling(self.hop), self.compute_dtype)
        inner = ops.shape(frames)[1] - 2
        near = ops.stack([frames[:, i : i + inner] for i in range(3)], axis=2)
        # [hop, 3] times [batch, frames, 3, gates]
        found = ops.matmul(weights, near)
        return ops.reshape(found, (ops.shape(frames)[0], count, 3 * self.units))

    def compute_output_shape(self, samples_shape, conditioning_shape):
        return (*samples_shape[:2], 3 * self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "hop": self.hop}


@register
class WaveRNNCell(keras.layers.Layer):
    """One step of the recurrence, with a layer for R of each gate.

    So each gate has masks of its own, with a name, a sparsity and a line in
    `keras_es.sparsity_report`: `R_u`, `R_r`, `R_e`.

    Args:
        units: Units of the hidden state.
        sparsity: None for `keras.layers.Dense`, or the share of zeros of layers that
            store blocks alone.
        block_shape: (rows, columns) of these blocks.
        **kwargs: As `keras.layers.Layer`.
    """

    def __init__(self, units, sparsity=None, block_shape=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.sparsity = units, sparsity
        self.block_shape = None if block_shape is None else tuple(block_shape)
        self.state_size = self.output_size = units
        self.R_u, self.R_r, self.R_e = (
            dense(units, f"R_{gate}", None, False, sparsity, block_shape)
            for gate in "ure"
        )

    @property
    def gates(self):
        """The layers of the gates, in the order of `recurrent_kernel`."""
        return self.R_u, self.R_r, self.R_e

    def build(self, input_shape):
        for gate in self.gates:
            if not gate.built:
                gate.build((None, self.units))
        self.built = True

    def recurrent_kernel(self):
        """Return R [units, 3 * units] as it acts, the gates u, r, e side by side."""
        return ops.concatenate([dense_kernel(gate) for gate in self.gates], axis=1)

    def call(self, inputs, states):
        h = states[0] if keras.tree.is_nested(states) else states
        kernel = ops.cast(self.recurrent_kernel(), h.dtype)
        h = recurrence.step(h, inputs, kernel)
        return h, [h]

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "sparsity": self.sparsity,
            "block_shape": self.block_shape,
        }


@register
class WaveRNN(keras.layers.RNN):
    """`keras.layers.RNN` over a `WaveRNNCell`, with the way back written out.

    Args:
        cell: `WaveRNNCell`.
        **kwargs: As `keras.layers.RNN`.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if mask is not None or self.go_backwards or self.unroll:
            return super().inner_loop(sequences, initial_state, mask, training)
        [state] = keras.tree.flatten(initial_state)
        kernel = ops.cast(self.cell.recurrent_kernel(), sequences.dtype)
        outputs = recurrence.gated(sequences, kernel, state)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], [last]
