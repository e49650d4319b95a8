"""Speaking with a trained SparseWaveRNN: `Generator`, and its streams."""

import numpy as np
import tensorflow as tf

from keras_es._arguments import boolean, is_integer
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
        blocks: "auto", or True or False for all of R, O1 and O3, whose rows (units,
            units / 2 and units / 2) the blocks then have to divide; O2 and O4 are
            multiplied in blocks if they are masked and it is not False.
        log_probabilities: Whether ln p of what is drawn is returned as well.

    Raises:
        ValueError: If an argument is out of range, or the model is no `SparseWaveRNN`.
    """

    def __init__(
        self, model, voices=1, block_rows=None, blocks="auto", log_probabilities=False
    ):
        numbers = {"voices": voices}
        if block_rows is not None:
            numbers["block_rows"] = block_rows
        for name, value in numbers.items():
            if not is_integer(value) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}"
                )
        blocks = _auto_or_boolean(blocks)
        log_probabilities = boolean("log_probabilities", log_probabilities)
        known = {layer.name for layer in getattr(model, "layers", ())}
        if not {"conditioning", "inputs", "wavernn", "O1", "O4"} <= known:
            raise ValueError(
                "`model` must be a SparseWaveRNN, as models.sparse_wavernn makes it. "
                f"Received: model={model!r}"
            )
        self.voices, self.hop = voices, model.get_layer("inputs").hop
        weights = extract(model)
        self.mels = len(weights["window"]) // (2 * CONTEXT - 1)
        self.rows = _block_rows(model) if block_rows is None else block_rows
        _check_rows(weights, self.rows, block_rows, blocks)
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
        given = range(generator.voices) if utterances is None else utterances
        numbers = [seed, *given] if np.iterable(given) else []
        if len(numbers) != 1 + generator.voices or not all(map(_is_word, numbers)):
            raise ValueError(
                "expected an integer in [0, 2**63) as seed and one for each of "
                f"{generator.voices} utterances. Received: seed={seed!r}, "
                f"utterances={utterances!r}"
            )
        self.seed, self.state = tf.constant(seed, tf.int64), self.program.start()
        self.utterances = tf.constant(numbers[1:], tf.int64)
        self.frames, self.finished = None, False

    def feed(self, mel):
        """Return the samples that can be told with more frames, int16 [voices, n].

        Args:
            mel: [voices, frames, mels], the frames that follow.

        Raises:
            ValueError: If they have another shape, are no finite numbers, or come after
                `finish`.
        """
        mel = _checked(mel, self.generator.voices, self.generator.mels)
        if self.finished:
            raise ValueError(
                "expected no frames after `finish`; make another stream for what else "
                f"is said. Received: mel of shape {mel.shape}"
            )
        if self.frames is None and mel.shape[1]:
            self.frames = np.repeat(mel[:, :1], CONTEXT, axis=1)
        if self.frames is not None:
            self.frames = np.concatenate([self.frames, mel], axis=1)
        return self._speak()

    def finish(self):
        """Return the samples of the last frames; nothing can be fed any more.

        Called once more, it returns none.
        """
        if self.frames is not None and not self.finished:
            after = np.repeat(self.frames[:, -1:], CONTEXT, axis=1)
            self.frames = np.concatenate([self.frames, after], axis=1)
        self.finished = True
        return self._speak()

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


def _auto_or_boolean(blocks):
    """Return the argument `blocks`, checked."""
    if isinstance(blocks, bool | np.bool_):
        return bool(blocks)
    if isinstance(blocks, str) and blocks == "auto":
        return blocks
    raise ValueError(
        f'`blocks` must be "auto", True or False. Received: blocks={blocks!r}'
    )


def _check_rows(weights, rows, given, blocks):
    """Refuse blocks that are asked for and that no product could be made of.

    Args:
        weights: What `extract` returned.
        rows: Rows of the blocks, or None.
        given: The argument `block_rows`.
        blocks: The argument `blocks`.
    """
    inputs = {name: len(weights[name]) for name in ("R", "O1", "O2", "O3", "O4")}
    received = f"Received: block_rows={given!r}, blocks={blocks!r}"
    if blocks and given and all(n % rows for n in inputs.values()):
        raise ValueError(
            f"`block_rows` must divide the rows of a matrix, of {inputs}. {received}"
        )
    if blocks == "auto" or not blocks:
        return
    if rows is None:
        raise ValueError(
            "`blocks=True` needs the rows of blocks with one column: give "
            "`block_rows`, or a model whose R is masked by such, as by "
            f"keras_es.patterns.Block(16, 1). {received}"
        )
    if any(inputs[name] % rows for name in ("R", "O1", "O3")):
        raise ValueError(
            f"with `blocks=True`, blocks of {rows} rows must divide the rows of R, O1 "
            f'and O3, of {inputs}; "auto" leaves dense what they do not. {received}'
        )


def _checked(mel, voices, mels):
    """Return frames as float32 [voices, frames, mels].

    Raises:
        ValueError: If they have another shape, or are no finite numbers.
    """
    expected = f"expected frames of shape ({voices}, frames, {mels}), in real numbers"
    try:
        given = np.asarray(mel)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{expected}. Received: mel of {type(mel)}, which is no array: {error}"
        ) from error
    # bfloat16 and its kin are not among NumPy's own kinds.
    kind = given.dtype.kind
    real = kind in "iuf" or (kind == "V" and np.can_cast(given.dtype, "float32"))
    fits = given.ndim == 3 and (given.shape[0], given.shape[2]) == (voices, mels)
    if not (fits and real):
        raise ValueError(
            f"{expected}. Received: mel of shape {given.shape}, of {given.dtype}"
        )
    with np.errstate(over="ignore"):
        found = given.astype("float32")
    wrong = np.argwhere(~np.isfinite(found))
    if len(wrong):
        place = tuple(map(int, wrong[0]))
        raise ValueError(
            f"expected finite frames. Received: mel with {given[place]} at {place} and "
            f"{len(wrong) - 1} more such numbers"
        )
    return found


def _is_word(value):
    return is_integer(value) and 0 <= value < 2**63
