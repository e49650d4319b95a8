"""The model that is trained: samples and frames in, logits of the same samples out."""

import keras
from keras import ops

from keras_es._arguments import is_integer
from keras_es.layers.block_sparse import check_block_size
from keras_es.layers.sparse_layer import check_sparsity
from models.sparse_wavernn.layers import (
    REACH,
    GateInputs,
    MelConditioning,
    WaveRNN,
    WaveRNNCell,
    dense,
)

CONTEXT = REACH + 1
"""Frames before the first and after the last sample that a batch of frames has too."""

DENSE_LAYERS = ("conditioning/.*", "O2", "O4")
"""What `keras_es.sparsify(..., exclude=...)` is to leave dense."""


def SparseWaveRNN(  # noqa: N802 - as the models of keras.applications are named
    units=896,
    hop=276,
    mels=80,
    channels=128,
    output_units=None,
    sparsity=None,
    block_shape=None,
    name="sparse_wavernn",
):
    """Return WaveRNN for samples of 16 bits, conditioned on log-mel frames.

    With c and f the upper and lower 8 bits of a sample, scaled to [-1, 1], and m what
    a small network says of the frames around it,

        x(t) = I [c(t - 1), f(t - 1), c(t)] + b + m(t),
        u = sigmoid(R_u h + x_u),  r = sigmoid(R_r h + x_r),
        e = tanh(r * (R_e h) + x_e),  h' = u * h + (1 - u) * e,
        p(c) = softmax(O2 relu(O1 h'_c)),  p(f | c) = softmax(O4 relu(O3 h'_f)),

    where h'_c, the first half of the units, does not see c(t).

    It is a functional Keras model of ordinary layers, to be masked by

        keras_es.sparsify(model, 0.95, pattern=keras_es.patterns.Block(16, 1),
                          exclude=DENSE_LAYERS)

    which masks R of each gate (`wavernn/.../R_u`, `R_r`, `R_e`), O1 and O3.

    Inputs are a dict: "samples", integers [batch, T] in [-32768, 32767], and "mel",
    [batch, T / hop + 2 * CONTEXT, mels]: the frames of the samples (see
    `keras_es.datasets.audio.mel_spectrogram`) with CONTEXT more on either side, real
    ones or those of `pad_frames`. Outputs are logits [batch, T, 2, 256], of c(t) and of
    f(t), given all samples before. Targets are the samples themselves: compile with
    `DualSoftmax()` and `Bits()`, and fit batches (x, x["samples"]).

    Args:
        units: Even number of hidden units.
        hop: Samples of a frame: 276 at 22.05 kHz.
        mels: Bands of a frame.
        channels: Channels of the network of the frames.
        output_units: Outputs of O1 and O3; default units / 2.
        sparsity: None for plain layers, which `sparsify` masks. Else the share of
            zeros of R, O1 and O3, of which then only the active blocks are stored.
        block_shape: (rows, columns) of these blocks; default (16, 1).
        name: Name of the model.

    Raises:
        ValueError: If an argument is out of range.
    """
    named = {"units": units, "hop": hop, "mels": mels, "channels": channels}
    if output_units is not None:
        named["output_units"] = output_units
    for argument, value in named.items():
        if not is_integer(value) or value < 1:
            raise ValueError(
                f"`{argument}` must be a positive integer. "
                f"Received: {argument}={value!r}"
            )
    if units % 2:
        raise ValueError(
            "`units` must be even: one half tells the coarse bits, the other the fine "
            f"ones. Received: units={units}"
        )
    output_units = units // 2 if output_units is None else output_units
    stored = {"sparsity": sparsity, "block_shape": block_shape}
    if sparsity is not None:
        stored["sparsity"] = check_sparsity(sparsity, "the model")
        block_shape = (16, 1) if block_shape is None else block_shape
        stored["block_shape"] = check_block_size(block_shape, "the model")
    elif block_shape is not None:
        raise ValueError(
            "`block_shape` is that of stored blocks, which takes `sparsity`; masks in "
            "blocks are those of a `pattern` of `keras_es.sparsify`. "
            f"Received: block_shape={block_shape!r}, sparsity=None"
        )
    samples = keras.Input((None,), dtype="int32", name="samples")
    mel = keras.Input((None, mels), name="mel")
    conditioning = MelConditioning(units, channels, name="conditioning")(mel)
    x = GateInputs(units, hop, name="inputs")(samples, conditioning)
    cell = WaveRNNCell(units, name="cell", **stored)
    h = WaveRNN(cell, return_sequences=True, name="wavernn")(x)
    coarse, fine = ops.split(h, 2, axis=-1)
    coarse = dense(output_units, "O1", "relu", **stored)(coarse)
    fine = dense(output_units, "O3", "relu", **stored)(fine)
    logits = [dense(256, "O2")(coarse), dense(256, "O4")(fine)]
    return keras.Model(
        {"samples": samples, "mel": mel}, ops.stack(logits, axis=2), name=name
    )


def pad_frames(mel, context=CONTEXT):
    """Return frames with the first and the last one repeated on either side.

    Args:
        mel: [batch, frames, mels], at least one frame.
        context: How often.
    """
    mel = ops.convert_to_tensor(mel)
    first = ops.repeat(mel[:, :1], context, axis=1)
    return ops.concatenate([first, mel, ops.repeat(mel[:, -1:], context, axis=1)], 1)
