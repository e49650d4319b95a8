"""Speech by name: a folder of recordings, or a data set of tensorflow-datasets."""

import os
from collections.abc import Callable
from pathlib import Path

from keras_es import _files as files
from keras_es._arguments import choice, integer, optional
from keras_es.datasets import tfds
from keras_es.datasets.audio import folder
from keras_es.datasets.audio.dataset import AudioDataset, split
from keras_es.datasets.audio.decoding import from_int16, refuse_clipped, resample
from keras_es.datasets.audio.features import LOWEST_RATE
from keras_es.datasets.audio.utterances import MOST_CLIPPED, of_files, of_sources

NAMES = ("ljspeech",)
"""Data sets of tensorflow-datasets that are speech with its text."""

HOLD_OUT = ("sentence", "speaker")


def is_audio(name: str | os.PathLike) -> bool:
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
    name = os.fspath(name)
    if name in NAMES or name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        return True
    if name.endswith("/"):  # As the shell completes folders, and no data set is called.
        return True
    if not name:  # No name at all; to pathlib it is the current folder.
        return False
    return any(folder.audio_files(Path(name)))


def load(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    sample_rate: int | None = None,
    hold_out: str = "sentence",
    say: Callable[[str], object] = print,
    progress: Callable[[int, int], object] | None = None,
) -> AudioDataset:
    """Load speech into memory.

    Recordings are mixed down to one channel, resampled to one rate, freed from silence
    at both ends (but for 50 ms) and rounded to 16 bits. What is silent, clipped (more
    than 1 % of a channel at full scale), shorter than 50 ms, of less than 1,000 samples
    in a second or broken is skipped, and said.
    Samples and features are kept in `~/.cache/keras_es/audio`, or where
    `KERAS_ES_CACHE_DIR` says (nowhere, if that is empty).

    Args:
        name: A folder with wav, flac or mp3 files and, if texts are known, a
            `metadata.csv` with lines `id|text` or `id|text|normalised text`; or
            `"ljspeech"` of tensorflow-datasets.
        data_dir: Where tensorflow-datasets keeps its files; see
            `keras_es.datasets.load`. A folder has none.
        sample_rate: Samples in a second, at least 1,000; None for the rate of the
            first recording.
        hold_out: What is held out for test: "sentence" (the test split of the data set
            itself, or every tenth sentence if that split leaves nothing on one side)
            or "speaker" (every tenth speaker).
        say: Function of a line, for each recording that is skipped, and if the test
            split is not that of the data set.
        progress: Function of (recordings done, recordings there are).

    Returns:
        An `AudioDataset`.

    Raises:
        ValueError: If there is no such folder, nothing in it can be used, its
            `metadata.csv` is not UTF-8, there is but one sentence or speaker, or an
            argument will not do.
        OutputError: If a path begins with the name of a user whom there is not.
        FileNotFoundError: If a data set is not there and cannot be downloaded.
        ImportError: If a library is missing without which nothing can be read.
    """
    hold_out = choice(*HOLD_OUT)("hold_out", hold_out)
    sample_rate = optional(integer(LOWEST_RATE))("sample_rate", sample_rate)
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise ValueError(
            f"`name` must be a folder of recordings, or one of {NAMES}. "
            f"Received: name={name!r}"
        )
    name = os.fspath(name)
    progress = progress or (lambda done, count: None)
    if name in NAMES:
        found, rate = _of_tfds(name, data_dir, sample_rate, say, progress)
    else:
        if data_dir not in (None, ""):
            raise ValueError(
                f"`data_dir` is where tensorflow-datasets keeps {', '.join(NAMES)}; "
                f"{name!r} is a folder itself. Received: data_dir={data_dir!r}"
            )
        place = files.expanded("name", name)
        if not place.is_dir():
            raise ValueError(
                f"there is no such folder of recordings. Received: dataset={name!r}"
            )
        recordings = folder.recordings(place, say)
        found, rate = of_files(recordings, sample_rate, say, progress)
    if not found:
        raise ValueError(f"no recording of it can be used. Received: dataset={name!r}")
    train, test = split(found, hold_out, say)
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
    refuse_clipped(samples, MOST_CLIPPED)
    return (samples, rate) if to is None else (resample(samples, rate, to), to)
