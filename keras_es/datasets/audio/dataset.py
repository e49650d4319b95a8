"""Speech in memory, as batches whose content is a function of (seed, step)."""

import collections
import dataclasses
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_es._arguments import integer, text
from keras_es._arguments import seed as check_seed
from keras_es.datasets.audio.decoding import SUFFIXES
from keras_es.datasets.audio.features import MELS, SILENCE, hop_length
from keras_es.datasets.audio.utterances import Utterance

HELD_OUT = 10
"""Of so many sentences, or speakers, one is for test."""

MOST_TEST_CROPS = 256
"""Crops of the test data, spread evenly over them if there are more."""


@dataclasses.dataclass(frozen=True)
class AudioDataset:
    """Utterances for training and for test.

    Args:
        name: The name of the data set.
        sample_rate: Samples in a second.
        train: Utterances of the training split, at least one.
        test: Those of the test split, at least one.

    Example:

    >>> from keras_es.datasets.audio import AudioDataset, Utterance
    >>> said = Utterance("a", "hello", "me", None, np.zeros(4000, "int16"),
    ...                  np.zeros((40, 80), "float32"))
    >>> data = AudioDataset("one word", 8000, [said], [said])
    >>> batch = next(iter(data.crops(2, frames=5, seed=0, context=1)))
    >>> batch["samples"].shape, batch["mel"].shape
    (TensorShape([2, 500]), TensorShape([2, 7, 80]))
    """

    name: str
    sample_rate: int
    train: Sequence[Utterance]
    test: Sequence[Utterance]

    def __post_init__(self):
        """Check that there is something, and that features fit the samples."""
        text("name", self.name)
        for name in ("train", "test"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must have an utterance. Received: none")
            for said in getattr(self, name):
                _check(name, said, self.hop)

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return hop_length(self.sample_rate)

    @property
    def speakers(self) -> list[str]:
        """Names of all speakers, sorted."""
        return sorted({u.speaker for u in (*self.train, *self.test)})

    def seconds(self, split: str = "train") -> float:
        """Return how long the utterances of a split are together.

        Args:
            split: "train" or "test".
        """
        return sum(len(u.samples) for u in getattr(self, split)) / self.sample_rate

    def crop_count(self, frames: int) -> int:
        """Return the crops that are as long as the training data together, at least 1.

        Args:
            frames: Frames of a crop, at least 1.
        """
        total = sum(len(u.mel) for u in self.train)
        return math.ceil(total / integer(1)("frames", frames))

    def crops(
        self,
        batch_size: int,
        frames: int,
        *,
        seed: int,
        first_step: int = 0,
        context: int = 0,
    ) -> tf.data.Dataset:
        """Return an endless stream of batches of equally long pieces.

        Each begins at a frame that is drawn from (seed, step) among all where it fits
        into an utterance, all equally likely. Utterances that are too short are filled
        up with silence.

        Args:
            batch_size: Pieces in a batch, at least 1.
            frames: Frames of a piece, at least 1.
            seed: Integer in [0, 2**31).
            first_step: Number of batches to skip, at least 0.
            context: Further frames of features before and behind, at least 0; before
                the first and behind the last frame of an utterance these again.

        Returns:
            A `tf.data.Dataset` of dicts: `samples`, int32 [batch, frames * hop] in
            [-32768, 32767], and `mel`, float32 [batch, frames + 2 context, 80].

        Raises:
            ValueError: If an argument is out of range.
        """
        batch_size = integer(1)("batch_size", batch_size)
        seed = check_seed("seed", seed)
        first_step = integer(0)("first_step", first_step)
        pieces = _Pieces(self.train, self.hop, frames, context)
        ends = tf.constant(np.cumsum(pieces.starts), tf.int64)

        def batch(step):
            key = tf.stack([tf.constant(seed, tf.int64), step])
            drawn = tf.random.stateless_uniform(
                [batch_size], key, 0, ends[-1], tf.int64, alg="philox"
            )
            which = tf.searchsorted(ends, drawn, side="right")
            first = drawn - tf.gather(tf.concat([[0], ends], 0), which)
            return pieces.cut(which, first)

        return by_step(batch, first_step)

    def test_places(self, frames: int) -> list[tuple[int, int]]:
        """Return where pieces of the test data begin: (utterance, frame).

        Args:
            frames: Frames of a piece, at least 1.
        """
        frames = integer(1)("frames", frames)
        places = [
            (which, first)
            for which, said in enumerate(self.test)
            for first in range(0, max(1, len(said.mel) - frames + 1), frames)
        ]
        if len(places) <= MOST_TEST_CROPS:
            return places
        chosen = np.arange(MOST_TEST_CROPS) * len(places) // MOST_TEST_CROPS
        return [places[i] for i in chosen]

    def test_crops(
        self, batch_size: int, frames: int, *, context: int = 0
    ) -> tf.data.Dataset:
        """Return pieces of the test data, one behind the other, in order.

        What is left over at the end of an utterance is left out, and of more than
        256 pieces that many are taken, spread evenly.

        Args:
            batch_size: See `crops`, as are the others; the last batch may be smaller.
            frames: Frames of a piece.
            context: Further frames of features.
        """
        batch_size = integer(1)("batch_size", batch_size)
        pieces = _Pieces(self.test, self.hop, frames, context)
        rows = tf.constant(self.test_places(frames), tf.int64)
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
        return batches.map(lambda p: pieces.cut(p[:, 0], p[:, 1])).prefetch(2)


def _check(split, said, hop):
    """Refuse what is no utterance, or whose features do not fit its samples."""
    if not isinstance(said, Utterance):
        raise ValueError(f"`{split}` must be of `Utterance`s. Received: {said!r}")
    samples, mel = np.asarray(said.samples), np.asarray(said.mel)
    if (samples.dtype, mel.dtype, mel.shape[1:]) != ("int16", "float32", (MELS,)):
        raise ValueError(
            "an utterance must have samples in int16, as `to_int16` makes them, and "
            f"features in float32 of shape [frames, {MELS}]. Received: {said.id!r} "
            f"with samples in {samples.dtype}, features in {mel.dtype} of {mel.shape}"
        )
    if samples.shape != (len(mel) * hop,):
        raise ValueError(
            f"the samples of an utterance must be {hop} for each frame. Received: "
            f"{said.id!r} with {samples.shape} samples and {mel.shape} features"
        )


def by_step(batch, first_step: int) -> tf.data.Dataset:
    """Return the endless stream of what a function makes of each step, in order.

    Args:
        batch: Function of the step, an int64 scalar.
        first_step: The first of them.
    """
    steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).prefetch(4)


class _Pieces:
    """Utterances behind each other, and what is cut out of them."""

    def __init__(self, utterances, hop, frames, context):
        self.frames = integer(1)("frames", frames)
        self.context, self.hop = integer(0)("context", context), hop
        lengths = [max(len(u.mel), self.frames) for u in utterances]
        self.starts = [n - self.frames + 1 for n in lengths]
        samples = [
            np.pad(u.samples, (0, n * hop - len(u.samples)))
            for u, n in zip(utterances, lengths)
        ]
        ends = ((self.context, self.context), (0, 0))
        mels = [
            np.pad(_filled(u.mel, n), ends, mode="edge")
            for u, n in zip(utterances, lengths)
        ]
        before = np.cumsum([0, *lengths])[:-1]
        with tf.device("CPU:0"):
            self.samples = tf.constant(np.concatenate(samples))
            self.mels = tf.constant(np.concatenate(mels))
            self.before = tf.constant(before, tf.int64)

    def cut(self, which, first):
        """Return pieces of some utterances that begin at some of their frames."""
        which = tf.cast(which, tf.int64)
        frame = tf.gather(self.before, which) + first
        rows = frame[:, None] * self.hop + tf.range(
            self.frames * self.hop, dtype=tf.int64
        )
        # Each utterance before has a context at both ends.
        first_row = frame + 2 * self.context * which
        count = self.frames + 2 * self.context
        columns = first_row[:, None] + tf.range(count, dtype=tf.int64)
        mel = tf.ensure_shape(tf.gather(self.mels, columns), (None, count, MELS))
        return {"samples": tf.cast(tf.gather(self.samples, rows), tf.int32), "mel": mel}


def _filled(mel, length):
    """Return frames filled up with silence."""
    rest = ((0, length - len(mel)), (0, 0))
    return np.pad(mel, rest, constant_values=SILENCE)


def split(
    utterances: Sequence[Utterance],
    hold_out: str,
    say: Callable[[str], object] = print,
) -> tuple[list[Utterance], list[Utterance]]:
    """Return the utterances for training and for test.

    By "sentence": what a data set itself holds out, else, or if that leaves nothing for
    training or for test, every tenth of the sorted texts with all recordings of it (of
    recordings, where texts are not known), at least one. By "speaker": every tenth of
    the sorted speakers, at least one.

    Args:
        utterances: At least two.
        hold_out: "sentence" or "speaker".
        say: Function of a line, if it is not what the data set itself holds out.

    Raises:
        ValueError: If there is but one sentence, or one speaker.
    """
    own = {u.test for u in utterances}
    if hold_out == "sentence" and own == {True, False}:
        groups = {u.id: str(u.test) for u in utterances}
        held = {"True"}
    else:
        if hold_out == "sentence" and None not in own:
            where = "test" if True in own else "training"
            say(
                f"all recordings are of the data set's own {where} split: every tenth "
                "sentence is held out for test in its place"
            )
        groups = {
            u.id: u.speaker if hold_out == "speaker" else u.text.lower() or _stem(u.id)
            for u in utterances
        }
        names = sorted(collections.Counter(groups.values()))
        held = set(names[HELD_OUT - 1 :: HELD_OUT] or names[-1:])
    test = [u for u in utterances if groups[u.id] in held]
    train = [u for u in utterances if groups[u.id] not in held]
    if not train or not test:
        raise ValueError(
            f"at least two {hold_out}s are needed, one of which is held out for test. "
            f"Received: {len(utterances)} recordings of one {hold_out}"
        )
    return train, test


def _stem(id):
    """Return what recordings have in common that differ in the kind of file alone."""
    stem, suffix = os.path.splitext(id)
    return stem if suffix.lower() in SUFFIXES else id
