"""Whole utterances with their texts, in batches of about one length."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_es._arguments import integer
from keras_es._arguments import seed as check_seed
from keras_es.datasets.audio.dataset import AudioDataset, by_step
from keras_es.datasets.audio.features import SILENCE

BUCKETS = 4
"""Groups of utterances of about one length; a batch comes from one."""

EDGE = " "
"""Stands before and after a text, for what is heard before and after it."""


def characters_of(data: AudioDataset) -> str:
    """Return the characters of the texts of a data set in lower case, sorted.

    Args:
        data: The data set; every utterance has to have a text.

    Raises:
        ValueError: If one has none.
    """
    silent = [u.id for u in (*data.train, *data.test) if not u.text]
    if silent:
        raise ValueError(
            "the texts of all recordings must be known: give the folder a metadata.csv "
            f"with lines id|text. Received: {data.name!r}, where {silent[0]!r} has none"
        )
    texts = (u.text.lower() for u in (*data.train, *data.test))
    return "".join(sorted({EDGE}.union(*texts)))


def encode(text: str, characters: str) -> list[int]:
    """Return a text as numbers from 1 on, with an edge at both ends.

    Args:
        text: In any case; runs of white space are one space.
        characters: Those that are known, as `characters_of` gives them.

    Raises:
        ValueError: If the text is empty, or has others.

    Example:

    >>> from keras_es.datasets.audio.sentences import encode
    >>> encode("A  b", " ab")
    [1, 2, 1, 3, 1]
    """
    words = " ".join(text.lower().split())
    unknown = sorted(set(words) - set(characters))
    if unknown or not words:
        raise ValueError(
            f"expected a text of the characters {characters.strip()!r}, which the "
            f"model was trained with{f'; not {unknown}' * bool(unknown)}. "
            f"Received: text={text!r}"
        )
    return [1 + characters.index(c) for c in EDGE + words + EDGE]


class Sentences:
    """Batches of whole utterances of an `AudioDataset`.

    A batch is a dict: `tokens` int32 [batch, characters], filled up with 0; `speaker`
    int32 [batch, 1], the index among `data.speakers`; `mel` float32 [batch, frames,
    80], filled up with silence; `frames` int32 [batch, 1], how many are not.

    Args:
        data: The data set.
        characters: As `characters_of` gives them.
        say: Function of a line, for each utterance that is skipped: it has fewer frames
            than characters.

    Raises:
        ValueError: If none is left for training, or for test.
    """

    def __init__(
        self,
        data: AudioDataset,
        characters: str,
        say: Callable[[str], object] = print,
    ):
        self.data, self.characters = data, characters
        self.train = self._rows("training", data.train, say)
        self.test = self._rows("test", data.test, say)

    def _rows(self, split, utterances, say):
        speakers = self.data.speakers
        rows = [
            (u, encode(u.text, self.characters), speakers.index(u.speaker))
            for u in utterances
        ]
        # Each character lasts a frame at least; else the text is of something else.
        fitting = [row for row in rows if len(row[0].mel) >= len(row[1])]
        for u, tokens, _ in rows:
            if len(u.mel) < len(tokens):
                say(
                    f"{u.id}: skipped, its text takes at least {len(tokens)} frames to "
                    f"say, and it has {len(u.mel)}"
                )
        if not fitting:
            raise ValueError(
                f"no recording for {split} is as long as its text takes to say, which "
                "is a frame of 12.5 ms for each character: correct the texts, or take "
                f"such recordings out. Received: {self.data.name!r}, where "
                f"{len(rows)} for {split} are too short"
            )
        return sorted(fitting, key=lambda row: (len(row[0].mel), row[0].id))

    def batches(
        self, batch_size: int, *, seed: int, first_step: int = 0
    ) -> tf.data.Dataset:
        """Return an endless stream of training batches, a function of (seed, step).

        Args:
            batch_size: Utterances in a batch, at least 1.
            seed: Integer.
            first_step: Number of batches to skip, at least 0.
        """
        batch_size = integer(1)("batch_size", batch_size)
        seed = check_seed("seed", seed)
        first_step = integer(0)("first_step", first_step)
        buckets = _buckets(self.train)
        ends = tf.constant(np.cumsum([b.size for b in buckets]), tf.int64)

        def batch(step):
            key = tf.stack([tf.constant(seed, tf.int64), step])
            keys = [
                tf.random.experimental.stateless_fold_in(key, i, alg="philox")
                for i in (0, 1)
            ]
            # A bucket by its share of the utterances, then utterances of it.
            place = tf.random.stateless_uniform(
                [], keys[0], 0, ends[-1], tf.int64, alg="philox"
            )
            which = tf.searchsorted(ends, place[None], side="right")[0]
            share = tf.random.stateless_uniform([batch_size], keys[1], alg="philox")
            return tf.switch_case(
                tf.cast(which, tf.int32), [lambda b=b: b.take(share) for b in buckets]
            )

        return by_step(batch, first_step)

    def test_batches(self, batch_size: int) -> tf.data.Dataset:
        """Return all test utterances, in batches of one bucket each.

        Args:
            batch_size: Utterances in a batch, at least 1.
        """
        batch_size = integer(1)("batch_size", batch_size)
        parts = []
        for bucket in _buckets(self.test):
            rows = tf.data.Dataset.range(bucket.size).batch(batch_size)
            parts.append(rows.map(bucket.rows))
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.concatenate(part)
        return whole.prefetch(2)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the batches that have as many utterances as there are.

        Args:
            batch_size: Utterances in a batch, at least 1.
        """
        return math.ceil(len(self.train) / integer(1)("batch_size", batch_size))


def _buckets(rows):
    count = min(BUCKETS, len(rows))
    cuts = [len(rows) * i // count for i in range(count + 1)]
    return [_Bucket(rows[a:b]) for a, b in zip(cuts, cuts[1:])]


class _Bucket:
    """Utterances of about one length, filled up to the longest."""

    def __init__(self, rows):
        self.size = len(rows)
        self.length = -(-max(len(u.mel) for u, _, _ in rows) // 8) * 8
        self.width = -(-max(len(t) for _, t, _ in rows) // 8) * 8
        tokens = [np.pad(t, (0, self.width - len(t))) for _, t, _ in rows]
        lengths = [len(u.mel) for u, _, _ in rows]
        with tf.device("CPU:0"):
            self.tokens = tf.constant(np.stack(tokens), tf.int32)
            self.speakers = tf.constant([[s] for _, _, s in rows], tf.int32)
            self.lengths = tf.constant(lengths, tf.int64)
            self.before = tf.constant(np.cumsum([0, *lengths])[:-1], tf.int64)
            self.mels = tf.constant(np.concatenate([u.mel for u, _, _ in rows]))

    def take(self, shares):
        """Return the utterances at shares [batch] in [0, 1) of the bucket."""
        index = tf.cast(shares * tf.cast(self.size, tf.float32), tf.int64)
        return self.rows(tf.minimum(index, self.size - 1))

    def rows(self, index):
        """Return some utterances as a batch, shapes known but for their number."""
        count = tf.gather(self.lengths, index)
        place = tf.range(self.length, dtype=tf.int64)
        said = place < count[:, None]
        frames = tf.gather(self.before, index)[:, None] + tf.where(said, place, 0)
        mel = tf.where(said[..., None], tf.gather(self.mels, frames), SILENCE)
        return {
            "tokens": tf.gather(self.tokens, index),
            "speaker": tf.gather(self.speakers, index),
            "mel": mel,
            "frames": tf.cast(count[:, None], tf.int32),
        }
