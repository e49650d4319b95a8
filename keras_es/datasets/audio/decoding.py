"""One audio file to mono samples at one rate, by whatever library is there.

tensorflow-io decodes and resamples where its native ops load. Elsewhere soundfile
decodes and soxr resamples; without soundfile, uncompressed wav files are still read.
"""

import functools
import importlib
import io
import math
import os
import wave
from typing import Any

import numpy as np
import tensorflow as tf

from keras_es import _files as files
from keras_es._arguments import choice, integer, optional
from keras_es.datasets.audio.features import LOWEST_RATE

SUFFIXES = (".wav", ".flac", ".mp3")
"""Files that are taken for audio."""

LIBRARIES = ("tensorflow-io", "soundfile", "wave")

EXTRA = "pip install 'keras_es[speech]'"

LOUDEST = {
    "PCM_U8": 127 / 128,
    "PCM_S8": 127 / 128,
    "ULAW": 32124 / 32768,
    "ALAW": 32256 / 32768,
}
"""Largest sample, of formats as soundfile calls them; of all others it is about 1."""

FILTER_LENGTH = 256
"""Samples, at the lower of two rates, that a resampler's filter takes at most."""

SPEEX_LENGTH = 64
"""Samples of the filter of tensorflow-io's resampler, which is Speex's."""


_import = importlib.import_module


class BadAudioError(ValueError):
    """A file that holds no audio that can be used; the message says why."""


def read(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    library: str | None = None,
    *,
    most_clipped: float | None = None,
) -> tuple[np.ndarray, int]:
    """Read an audio file as mono samples.

    Channels are averaged. Integers of b bits are divided by 2^(b−1), unsigned 8-bit
    ones after 128 is taken off.

    Args:
        path: A wav, flac or mp3 file.
        sample_rate: What to resample to, at least 1,000, or None to leave the file's
            rate.
        library: `"tensorflow-io"`, `"soundfile"` or `"wave"` (of Python itself, for
            uncompressed wav files); None for the first of them that is there.
        most_clipped: Share of the samples of a channel that may be at full scale; None
            for all of them.

    Returns:
        A tuple of float32 samples [T], in [-1, 1] but for what resampling adds, and
        their rate.

    Raises:
        BadAudioError: If the file is empty, broken, clipped, of a rate below 1,000, or
            of no kind that is known.
        ImportError: If a library is missing that it takes.
        ValueError: If `sample_rate` or `library` is not one of these.
        OSError: If the file cannot be read.

    Example:

    >>> import tempfile, wave
    >>> path = tempfile.mkdtemp() + "/a.wav"
    >>> with wave.open(path, "wb") as file:
    ...     file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
    ...     file.writeframes(np.array([0, 16384, -32768], "<i2").tobytes())
    >>> keras_es.datasets.audio.read(path)
    (array([ 0. ,  0.5, -1. ], dtype=float32), 8000)
    """
    path = files.expanded("path", path)
    library = optional(choice(*LIBRARIES))("library", library)
    sample_rate = optional(integer(LOWEST_RATE))("sample_rate", sample_rate)
    if library is None:
        library = "tensorflow-io" if _tensorflow_io() else None
    if library is None:
        library = "soundfile" if _found("soundfile") else "wave"
    content = path.read_bytes()
    if not content:
        raise BadAudioError("the file is empty")
    samples, rate, loudest = _DECODERS[library](content, path)
    if rate < LOWEST_RATE:
        raise BadAudioError(
            f"its rate is {rate:,} Hz, and at least {LOWEST_RATE:,} are needed"
        )
    if not len(samples):
        raise BadAudioError("it has no samples")
    if not np.isfinite(samples).all():
        raise BadAudioError("it has samples that are not finite numbers")
    if most_clipped is not None:
        refuse_clipped(samples, most_clipped, loudest)
    if samples.ndim == 2:
        samples = samples.mean(axis=1, dtype="float32")
    if sample_rate not in (None, rate):
        samples = _resampled(samples, rate, sample_rate, library == "tensorflow-io")
        rate = sample_rate
    return samples, rate


def resample(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Return samples [T] at another rate, ceil(T · to / rate) of them.

    Args:
        samples: float32 array.
        rate: Their rate, at least 1.
        to: The rate that is wanted, at least 1.

    Raises:
        ImportError: If no library is there that resamples.
        ValueError: If a rate is no such integer.
    """
    rate, to = integer(1)("rate", rate), integer(1)("to", to)
    if rate == to:
        return samples
    return _resampled(samples, rate, to, _tensorflow_io() is not None)


def refuse_clipped(samples: np.ndarray, most: float, loudest: float = 1.0) -> None:
    """Refuse samples as they are stored: to mix or to resample them hides it.

    Args:
        samples: Floats [T] or [T, channels].
        most: Share of the samples of a channel that may be at full scale.
        loudest: The largest sample that there can be.

    Raises:
        BadAudioError: If there are more.
    """
    # To 16 bits the last two steps are full scale.
    full = np.abs(samples) >= min(loudest, 1.0 - 2.0**-14)
    share = float(np.max(np.mean(full, axis=0)))
    if share > most:
        what = "a channel" if samples.ndim == 2 and samples.shape[1] > 1 else "it"
        raise BadAudioError(f"it is clipped: {share:.0%} of {what} are at full scale")


def from_int16(samples: Any) -> np.ndarray:
    """Return 16-bit samples, integers of any type, as float32 in [-1, 1)."""
    return np.asarray(samples, "float32") / np.float32(32768)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Return samples as 16-bit integers, rounded; what is outside [-1, 1) is cut."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("int16")


@functools.cache
def _tensorflow_io() -> Any:
    """Return `tensorflow_io.audio` where its native ops load, else None."""
    try:
        audio = _import("tensorflow_io").audio
        # The import succeeds without them; they are looked up at their first use.
        audio.decode_wav(_SHORTEST_WAV, dtype=tf.int16)
    except Exception:  # Whatever it is, the other libraries do without.
        return None
    return audio


@functools.cache
def _found(module):
    try:
        _import(module)
    except (ImportError, OSError):  # soundfile without its libsndfile
        return False
    return True


def _required(module, what):
    try:
        return _import(module)
    except (ImportError, OSError) as error:
        raise ImportError(
            f"{what} needs {module}, which cannot be imported ({error}); {EXTRA}, or "
            "on TensorFlow 2.17 'keras_es[audio]'"
        ) from error


def _by_tensorflow_io(content, path):
    audio = _tensorflow_io()
    if audio is None:
        raise ImportError(
            "tensorflow-io with its native ops is not there: they load on TensorFlow "
            "2.17, with pip install 'keras_es[audio]'"
        )
    if path.suffix.lower() == ".wav":
        # Its kernels take a wav file's word for its length.
        _check_wav(content)
    try:
        stored = audio.AudioIOTensor(os.fspath(path))
        samples, rate = stored.to_tensor().numpy(), int(stored.rate)
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise BadAudioError(_reason(error)) from error
    return _to_float(samples), rate, _loudest(samples.dtype)


def _by_soundfile(content, path):
    soundfile = _required("soundfile", f"a {path.suffix} file")
    if path.suffix.lower() == ".wav":
        _check_wav(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            loudest = LOUDEST.get(file.subtype, 1.0)
            return file.read(dtype="float32"), file.samplerate, loudest
    except (RuntimeError, ValueError, TypeError) as error:
        # Its full message has the address of the bytes.
        reason = getattr(error, "error_string", None) or _reason(error)
        raise BadAudioError(reason) from error


def _by_wave(content, path):
    if path.suffix.lower() != ".wav":
        _required("soundfile", f"a {path.suffix} file")
    _check_wav(content)
    try:
        with wave.open(io.BytesIO(content)) as file:
            width, channels = file.getsampwidth(), file.getnchannels()
            raw = file.readframes(file.getnframes())
            rate = file.getframerate()
    except (wave.Error, EOFError, RuntimeError) as error:
        compressed = "unknown format" in str(error)
        hint = f"; {EXTRA} for other kinds of wav files" if compressed else ""
        raise BadAudioError(_reason(error) + hint) from error
    if width > 4:
        raise BadAudioError(f"it has samples of {8 * width} bits, not 8 to 32")
    # A file whose length was not known when it began may end inside of a sample.
    raw = raw[: len(raw) - len(raw) % (width * channels)]
    if width == 3:  # 24 bits: the upper bytes of 32
        bytes_ = np.frombuffer(raw, "u1").reshape(-1, 3)
        raw = np.pad(bytes_, [(0, 0), (1, 0)]).tobytes()
    kind = {1: "u1", 2: "<i2", 3: "<i4", 4: "<i4"}[width]
    samples = np.frombuffer(raw, kind).reshape(-1, channels)
    return _to_float(samples), rate, _loudest(samples.dtype)


_DECODERS = {
    "tensorflow-io": _by_tensorflow_io,
    "soundfile": _by_soundfile,
    "wave": _by_wave,
}


def _check_wav(content):
    """Refuse a wav file that ends before its data do: it was not written in full."""
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        raise BadAudioError("it is no wav file")
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"data":
            # 2^32 - 1 stands where a program that streams did not know the length.
            if place + 8 + size > len(content) and size < 2**32 - 1:
                there = len(content) - place - 8
                raise BadAudioError(
                    f"it is cut short: {there:,} of {size:,} bytes of samples"
                )
            return
        place += 8 + size + size % 2
    raise BadAudioError("it has no samples")


def _to_float(samples):
    """Return stored samples as float32 in [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype("float32")
    if samples.dtype == np.uint8:
        return (samples.astype("float32") - 128.0) / 128.0
    return samples.astype("float32") / np.float32(2 ** (8 * samples.itemsize - 1))


def _loudest(dtype):
    """Return the largest sample that a type can hold, as `_to_float` gives it."""
    return 1.0 if dtype.kind == "f" else 1.0 - 2.0 ** (1 - 8 * dtype.itemsize)


def _resampled(samples, rate, to, by_io):
    """Return ceil(T * to / rate) samples at another rate.

    Outside of what is there, libraries take sound for 0, and a step to that is heard
    where a recording has an offset. So both ends are held for as long as a filter is,
    and for a whole number of new samples.
    """
    if not len(samples):
        return samples
    unit = rate // math.gcd(rate, to)
    ends = -(-FILTER_LENGTH * max(rate, to) // (to * unit)) * unit
    found = (_by_speex if by_io else _by_soxr)(np.pad(samples, ends, "edge"), rate, to)
    first, wanted = ends * to // rate, -(-len(samples) * to // rate)
    return np.pad(found, (0, wanted))[first : first + wanted].astype("float32")


def _by_speex(samples, rate, to):
    """Resample by tensorflow-io and take its delay off.

    It comes late by half its filter, which is longer to a lower rate and then a
    multiple of 8. Zeros before make a whole number of new samples of it.
    """
    common = math.gcd(rate, to)
    length = max(SPEEX_LENGTH, SPEEX_LENGTH * rate // to)
    delay = -(-length // 8) * 8 // 2
    before = -delay % (rate // common)
    late = (delay + before) * to // rate
    padded = np.pad(samples, (before, delay + rate // common))
    return _tensorflow_io().resample(padded[:, None], rate, to).numpy()[late:, 0]


def _by_soxr(samples, rate, to):
    soxr = _required("soxr", f"resampling from {rate:,} to {to:,} Hz")
    return soxr.resample(samples, rate, to)


def _reason(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


_SHORTEST_WAV = (
    b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0"
    b"data\2\0\0\0\0\0"
)
