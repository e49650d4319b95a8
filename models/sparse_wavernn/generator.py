"""Speaking with a trained SparseWaveRNN: `Generator`, and its streams."""

import numpy as np
import tensorflow as tf

from keras_es._arguments import is_integer
from models.sparse_wavernn import products
from models.sparse_wavernn.network import CONTEXT
from models.sparse_wavernn.program import Program, extract

FRAMES = 20
"""Frames that are spoken in one call of the program, a quarter of a second."""

DENSITY = 0.5
"""Share of active blocks up to which they are taken to win; a guess for many voices."""


class Generator:
    """Samples from frames, by one compiled loop without Python.

    The same frames, seed and utterance give the same samples to the bit, whether they
    are spoken at once or piece by piece, and whatever is spoken beside them; but for
    another number of `voices`, whose products are rounded in another order.

    Args:
        model: A trained `SparseWaveRNN`, with masks, with stored blocks, or dense. Its
            weights are copied.
        voices: How many utterances are spoken at once.
        block_rows: Rows of the blocks (with one column) that zeros come in, for
            products with active blocks alone; None to take them from the model. A
            matrix is multiplied in blocks if so many of them are zero that it is
            faster.
        blocks: "auto", or True or False for all of R, O1 and O3; O2 and O4 are
            multiplied in blocks if they are masked and it is not False.
        log_probabilities: Whether ln p of what is drawn is returned as well.

    Raises:
        ValueError: If an argument is out of range, or the model is no `SparseWaveRNN`.
    """

    def __init__(
        self, model, voices=1, block_rows=None, blocks="auto", log_probabilities=False
    ):
        for name, value in {"voices": voices, "block_rows": block_rows or 1}.items():
            if not is_integer(value) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}"
                )
        if blocks not in ("auto", True, False):
            raise ValueError(
                f'`blocks` must be "auto", True or False. Received: blocks={blocks!r}'
            )
        known = {layer.name for layer in getattr(model, "layers", ())}
        if not {"conditioning", "inputs", "wavernn", "O1", "O4"} <= known:
            raise ValueError(
                "`model` must be a SparseWaveRNN, as models.sparse_wavernn makes it. "
                f"Received: model={model!r}"
            )
        self.voices, self.hop = voices, model.get_layer("inputs").hop
        weights = extract(model)
        self.mels = len(weights["window"]) // (2 * CONTEXT - 1)
        self.rows = block_rows or _block_rows(model)
        self.blocks, self.in_blocks = blocks, {}
        self.program = Program(
            weights, self.hop, FRAMES, voices, self._product, log_probabilities
        )

    def _product(self, name, matrix):
        rows = self.rows
        fits = rows is not None and len(matrix) % rows == 0
        if fits and (self.blocks == "auto" or name in ("O2", "O4")):
            active = products.active_blocks(matrix, rows)
            fits = active.mean() <= DENSITY and rows <= products.MOST_ROWS
        self.in_blocks[name] = bool(fits and self.blocks)
        if self.in_blocks[name]:
            return products.Blocks(matrix, rows)
        return products.Dense(matrix)

    def __call__(self, mel, seed=0, utterances=None):
        """Return the samples of frames, int16 [voices, frames * hop].

        Args:
            mel: [voices, frames, mels], without context: the first and the last frame
                are repeated before and after.
            seed: Integer.
            utterances: Integers, which utterance each voice is; default 0, 1, ...

        Returns:
            The samples; with `log_probabilities` a tuple of them and of ln p(c) and
            ln p(f), float32 [voices, frames * hop, 2].
        """
        stream = self.stream(seed, utterances)
        pieces = [stream.feed(mel), stream.finish()]
        if not self.program.log_probabilities:
            return np.concatenate(pieces, axis=1)
        return tuple(np.concatenate(part, axis=1) for part in zip(*pieces))

    def stream(self, seed=0, utterances=None):
        """Return a `Stream`, which speaks frames as they come."""
        return Stream(self, seed, utterances)


class Stream:
    """Speaks frames as they come: CONTEXT frames later, for it looks so far ahead.

    Args:
        generator: `Generator`.
        seed: Integer.
        utterances: Integers, which utterance each voice is; default 0, 1, ...
    """

    def __init__(self, generator, seed=0, utterances=None):
        self.generator, self.program = generator, generator.program
        self.utterances = range(generator.voices) if utterances is None else utterances
        numbers = [seed, *self.utterances]
        if len(numbers) != 1 + generator.voices or not all(map(_is_word, numbers)):
            raise ValueError(
                "expected an integer in [0, 2**63) as seed and one for each of "
                f"{generator.voices} utterances. Received: seed={seed!r}, "
                f"utterances={utterances!r}"
            )
        self.seed, self.state = tf.constant(seed, tf.int64), self.program.start()
        self.utterances = tf.constant(list(self.utterances), tf.int64)
        self.frames = None

    def feed(self, mel):
        """Return the samples that can be told with more frames, int16 [voices, n].

        Args:
            mel: [voices, frames, mels], the frames that follow.
        """
        mel = np.asarray(mel, "float32")
        wanted = (self.generator.voices, self.generator.mels)
        if mel.ndim != 3 or (mel.shape[0], mel.shape[2]) != wanted:
            raise ValueError(
                f"expected frames of shape ({wanted[0]}, frames, {wanted[1]}). "
                f"Received: mel of shape {mel.shape}"
            )
        if self.frames is None and mel.shape[1]:
            self.frames = np.repeat(mel[:, :1], CONTEXT, axis=1)
        if self.frames is not None:
            self.frames = np.concatenate([self.frames, mel], axis=1)
        return self._speak()

    def finish(self):
        """Return the samples of the last frames; nothing can be fed any more."""
        if self.frames is None:
            return self._speak()
        return self.feed(np.repeat(self.frames[:, -1:], CONTEXT, axis=1))

    def _speak(self):
        """Speak all frames that have CONTEXT more on either side."""
        samples, logs = [], []
        while self.frames is not None and self.frames.shape[1] > 2 * CONTEXT:
            count = min(self.program.frames, self.frames.shape[1] - 2 * CONTEXT)
            window = self.frames[:, : self.program.frames + 2 * CONTEXT]
            short = self.program.frames + 2 * CONTEXT - window.shape[1]
            window = np.pad(window, ((0, 0), (0, short), (0, 0)))
            found, ln_p, self.state = self.program.speak(
                window, tf.constant(count), self.seed, self.utterances, self.state
            )
            length = count * self.program.hop
            samples.append(self._by_voice(found.numpy()[:length], 1))
            if self.program.log_probabilities:
                logs.append(self._by_voice(ln_p.numpy()[:length], 2))
            self.frames = self.frames[:, count:]
        samples = np.concatenate(
            [np.zeros((self.generator.voices, 0), "int16"), *samples], axis=1
        ).astype("int16")
        if not self.program.log_probabilities:
            return samples
        empty = np.zeros((self.generator.voices, 0, 2), "float32")
        return samples, np.concatenate([empty, *logs], axis=1)

    def _by_voice(self, values, rank):
        """Return values [T, ..., voices] as [voices, T, ...]."""
        if self.generator.voices == 1:
            return values[None]
        return np.moveaxis(values, -1, 0)


def side_by_side(mels):
    """Return frames of several utterances, [voices, frames, mels].

    The last frame of what is shorter stands for those that it has not.

    Args:
        mels: Arrays [frames, mels].
    """
    longest = max(map(len, mels))
    return np.stack(
        [np.pad(mel, ((0, longest - len(mel)), (0, 0)), mode="edge") for mel in mels]
    )


def _block_rows(model):
    """Return the rows of the blocks of R; None if they have several columns."""
    weights = model.get_layer("wavernn").cell.R_u
    found = getattr(weights, "masked_weights", ())
    pattern = found[0].pattern if found else None
    return getattr(pattern, "rows", None) if getattr(pattern, "cols", 0) == 1 else None


def _is_word(value):
    return is_integer(value) and 0 <= value < 2**63
