"""Speech by name: a folder of recordings, or a data set of tensorflow-datasets."""

import os
from collections.abc import Callable
from pathlib import Path

from keras_es._arguments import choice, integer, optional
from keras_es.datasets import tfds
from keras_es.datasets.audio import folder
from keras_es.datasets.audio.dataset import AudioDataset, split
from keras_es.datasets.audio.decoding import SUFFIXES, from_int16, resample
from keras_es.datasets.audio.utterances import of_files, of_sources

NAMES = ("ljspeech",)
"""Data sets of tensorflow-datasets that are speech with its text."""

HOLD_OUT = ("sentence", "speaker")


def is_audio(name: str) -> bool:
    """Tell whether what --dataset says is speech: a folder, or a name that is known.

    A folder that happens to be called like a data set counts if audio files are in it.

    Args:
        name: A name, or a path.

    Example:

    >>> keras_es.datasets.audio.is_audio("mnist")
    False
    >>> keras_es.datasets.audio.is_audio("ljspeech")
    True
    """
    if name in NAMES or name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return True
    if name.endswith("/"):  # As the shell completes folders, and no data set is called.
        return True
    path = Path(name)
    return path.is_dir() and any(
        found.suffix.lower() in SUFFIXES for found in path.rglob("*")
    )


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    sample_rate: int | None = None,
    hold_out: str = "sentence",
    say: Callable[[str], object] = print,
    progress: Callable[[int, int], object] | None = None,
) -> AudioDataset:
    """Load speech into memory.

    Recordings are mixed down to one channel, resampled to one rate, freed from silence
    at both ends (but for 50 ms) and rounded to 16 bits. What is silent, clipped (1 %
    of it or more at full scale), shorter than 50 ms or broken is skipped, and said.
    Samples and features are kept in `~/.cache/keras_es/audio`, or where
    `KERAS_ES_CACHE_DIR` says (nowhere, if that is empty).

    Args:
        name: A folder with wav, flac or mp3 files and, if texts are known, a
            `metadata.csv` with lines `id|text` or `id|text|normalised text`; or
            `"ljspeech"` of tensorflow-datasets.
        data_dir: Where tensorflow-datasets keeps its files; see
            `keras_es.datasets.load`.
        sample_rate: Samples in a second, at least 1,000; None for the rate of the
            first recording.
        hold_out: What is held out for test: "sentence" (the test split of the data set
            itself, or every tenth sentence) or "speaker" (every tenth speaker).
        say: Function of a line, for each recording that is skipped.
        progress: Function of (recordings done, recordings there are).

    Returns:
        An `AudioDataset`.

    Raises:
        ValueError: If there is no such folder, nothing in it can be used, or there is
            but one sentence or speaker.
        FileNotFoundError: If a data set is not there and cannot be downloaded.
        ImportError: If a library is missing without which nothing can be read.
    """
    hold_out = choice(*HOLD_OUT)("hold_out", hold_out)
    sample_rate = optional(integer(1000))("sample_rate", sample_rate)
    progress = progress or (lambda done, count: None)
    if name in NAMES:
        found, rate = _of_tfds(name, data_dir, sample_rate, say, progress)
    else:
        place = Path(name).expanduser()
        if not place.is_dir():
            raise ValueError(
                f"there is no such folder of recordings. Received: dataset={name!r}"
            )
        recordings = folder.recordings(place, say)
        found, rate = of_files(recordings, sample_rate, say, progress)
    if not found:
        raise ValueError(f"no recording of it can be used. Received: dataset={name!r}")
    train, test = split(found, hold_out)
    return AudioDataset(name, rate, train, test)


def _of_tfds(name, data_dir, sample_rate, say, progress):
    builder = tfds.speech_builder(name, tfds.folder(data_dir))
    rate = builder.info.features["speech"].sample_rate
    size = builder.info.splits["train"].num_examples

    def sources():
        for row in builder.as_dataset(split="train").as_numpy_iterator():
            texts = [row[k].decode() for k in ("text_normalized", "text")]
            text = texts[0] or texts[1]
            described = folder.Recording(row["id"].decode(), Path(), text, name)
            yield described, lambda to, row=row: _resampled(row["speech"], rate, to)

    key = [str(builder.data_dir), size, sample_rate]
    return of_sources(key, [], sources(), size, sample_rate, say, progress)


def _resampled(integers, rate, to):
    samples = from_int16(integers)
    return (samples, rate) if to is None else (resample(samples, rate, to), to)
