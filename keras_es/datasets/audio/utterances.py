"""From files to utterances: cleaned samples, their features, and what is skipped."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_es.datasets.audio import cache
from keras_es.datasets.audio.decoding import (
    BadAudioError,
    from_int16,
    read,
    to_int16,
)
from keras_es.datasets.audio.features import hop_length, mel_spectrogram

SILENT = 2.0**-10
"""A recording whose peak is below is silent: 60 dB below full scale."""

TRIMMED = 10.0 ** (-50 / 20)
"""Beginning and end are cut off while their level is this far below the loudest."""

MARGIN = 4
"""Hops that stay before and after what is heard."""

SHORTEST = 4
"""Hops of the shortest utterance: a window."""

MOST_CLIPPED = 0.01
"""Share of a channel's samples at full scale from which on a recording is skipped."""

PARTS = ("rate", "skipped", "names", "lengths", "samples", "mel")
"""Arrays that the cache keeps."""


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A recording, cleaned.

    Args:
        id: Its name.
        text: What is said, or "".
        speaker: Who says it.
        test: As `folder.Recording.test`.
        samples: int16 [frames * hop].
        mel: float32 [frames, 80], the features of the samples.
    """

    id: str
    text: str
    speaker: str
    test: bool | None
    samples: np.ndarray
    mel: np.ndarray


def clean(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return samples as 16-bit integers without the silence around them.

    The level is the standard deviation of a hop: a constant is not heard. A rest
    shorter than a hop is filled up with zeros; what is beyond full scale is clipped, as
    a converter does.

    Args:
        samples: Floats [T], full scale is 1.
        sample_rate: Samples in a second.

    Returns:
        int16 array, a whole number of hops long.

    Raises:
        BadAudioError: If it is silent or too short.

    Example:

    >>> from keras_es.datasets.audio.utterances import clean
    >>> tone = np.sin(np.arange(800))
    >>> quiet = np.zeros(8000)
    >>> len(clean(np.concatenate([quiet, 0.5 * tone, quiet]), 8000)) / 100
    16.0
    """
    hop = hop_length(sample_rate)
    rest = (0, -len(samples) % hop)
    # Filled up with the last sample, a rest has no step that would be heard.
    rows = np.pad(np.float64(samples), rest, "edge").reshape(-1, hop)
    rows -= rows.mean(axis=1, keepdims=True)
    if np.max(np.abs(rows), initial=0.0) < SILENT:
        raise BadAudioError("it is silent")
    level = np.sqrt(np.mean(np.square(rows), axis=1))
    rows = np.pad(samples, rest).reshape(-1, hop)
    heard = np.flatnonzero(level > TRIMMED * level.max())
    rows = rows[max(0, heard[0] - MARGIN) : heard[-1] + 1 + MARGIN]
    if len(rows) < SHORTEST:
        raise BadAudioError(
            f"it is too short: {len(rows) * hop / sample_rate * 1000:.0f} ms"
        )
    return to_int16(rows.ravel())


def of_files(
    recordings: list[Any],
    sample_rate: int | None,
    say: Callable[[str], object],
    progress: Callable[[int, int], object],
) -> tuple[list[Utterance], int]:
    """Read recordings, or take from the cache what was made of them.

    Args:
        recordings: Of `folder.recordings`.
        sample_rate: What to resample to; None for the rate of the first.
        say: Function of a line, for each that is skipped.
        progress: Function of (how many are done, how many there are).

    Returns:
        The utterances and their rate.

    Raises:
        ImportError: If nothing can be read for lack of a library.
        ValueError: If nothing can be used.
    """
    rows = [[r.id, r.text, r.speaker, r.test] for r in recordings]
    paths = [r.path for r in recordings]
    unclipped = functools.partial(read, most_clipped=MOST_CLIPPED)
    sources = ((r, functools.partial(unclipped, r.path)) for r in recordings)
    return of_sources(rows, paths, sources, len(rows), sample_rate, say, progress)


def of_sources(key, paths, sources, count, sample_rate, say, progress):
    """Return utterances and their rate, of the cache if they are there.

    Args:
        key: What they follow from, besides the rate: something that JSON can hold.
        paths: Files that they follow from.
        sources: See `gather`, as are the others.
        count: How many there are.
        sample_rate: What to resample to, or None.
        say: Function of a line.
        progress: Function of two numbers.
    """
    name = cache.key([key, sample_rate], paths)
    kept = cache.load(name, PARTS)
    if kept is not None:
        for line in json.loads(str(kept["skipped"])):
            say(line)
        return _unpacked(kept), int(kept["rate"])
    skipped: list[str] = []

    def say_and_note(line):
        skipped.append(line)
        say(line)

    found, rate, whole = gather(sources, count, sample_rate, say_and_note, progress)
    if found and whole:
        notes = {"rate": np.array(rate), "skipped": np.array(json.dumps(skipped))}
        cache.store(name, _packed(found) | notes)
    return found, rate


def gather(sources, count, sample_rate, say, progress):
    """Return utterances, their rate, and whether that is so the next time, too.

    Args:
        sources: Of (what has id, text, speaker and test, as `folder.Recording`; a
            function from the rate that is wanted, or None, to samples and rate).
        count: How many there are.
        sample_rate: See `of_files`, as are the others.
        say: Function of a line.
        progress: Function of two numbers.
    """
    found: list[Utterance] = []
    missing: ImportError | None = None
    whole = True  # Else a library, memory or a permission may be there the next time.
    for done, (recording, samples_at) in enumerate(sources, 1):
        try:
            samples, rate = samples_at(sample_rate)
            integers = clean(samples, rate)
            mel = mel_spectrogram(from_int16(integers), rate).numpy()
        except ImportError as error:
            missing, whole = error, False
            say(f"{recording.id}: skipped, {error}")
        except (MemoryError, tf.errors.ResourceExhaustedError):
            whole = False
            say(f"{recording.id}: skipped, it takes more memory than there is")
        except (ValueError, OSError) as error:
            whole = whole and not isinstance(error, OSError)
            say(f"{recording.id}: skipped, {_reason(error)}")
        else:
            sample_rate = rate  # All others are resampled to the first.
            found.append(
                Utterance(
                    recording.id, recording.text, recording.speaker, recording.test,
                    integers, mel,
                )
            )  # fmt: skip
        progress(done, count)
    if not found and missing is not None:
        raise missing
    return found, sample_rate, whole


def _reason(error):
    return getattr(error, "strerror", None) or str(error)


def _packed(utterances):
    names = [[u.id, u.text, u.speaker, u.test] for u in utterances]
    return {
        "names": np.array(json.dumps(names)),
        "lengths": np.array([len(u.mel) for u in utterances], "int64"),
        "samples": np.concatenate([u.samples for u in utterances]),
        "mel": np.concatenate([u.mel for u in utterances]),
    }


def _unpacked(arrays):
    ends = np.cumsum(arrays["lengths"])[:-1]
    mels = np.split(arrays["mel"], ends)
    hop = len(arrays["samples"]) // len(arrays["mel"])
    samples = np.split(arrays["samples"], ends * hop)
    return [
        Utterance(id, text, speaker, test, s, m)
        for (id, text, speaker, test), s, m in zip(
            json.loads(str(arrays["names"])), samples, mels
        )
    ]
