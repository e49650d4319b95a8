"""Recordings that tests write, and what is read of them."""

import wave

import numpy as np

from keras_es.datasets import audio

RATE = 8000


def write(path, samples, rate=RATE, width=2):
    """Write samples [T] or [T, channels] in [-1, 1] to a wav file."""
    samples = np.asarray(samples, "float64")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    full = 2.0 ** (8 * width - 1)
    integers = np.clip(np.round(samples * full), -full, full - 1).astype("int64")
    if width == 1:
        raw = (integers + 128).astype("u1").tobytes()
    else:
        raw = integers.ravel().astype("<i4").view("u1").reshape(-1, 4)
        raw = raw[:, :width].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(raw)
    return path


def tone(seconds=0.5, rate=RATE, frequency=440.0, size=0.5):
    return size * np.sin(2 * np.pi * frequency * np.arange(seconds * rate) / rate)


def lines_of(name, **arguments):
    said = []
    try:
        data = audio.load(str(name), say=said.append, **arguments)
    except ValueError as error:
        data = error
    return data, said


def ids(found):
    return [u.id for u in found]
