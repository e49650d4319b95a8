"""Samples to listen to, with their spectrograms, and sound without a network."""

import functools
import re

import numpy as np
import tensorflow as tf

from benchmarks.speech import distances
from keras_es.datasets import audio
from keras_es.datasets.audio import features

ITERATIONS = 32


def keep(sounds, sample_rate, folder):
    """Write a wav file of each voice, and a picture of all.

    Args:
        sounds: Dict from names to lists of int16 arrays, the same utterances each.
        sample_rate: Samples in a second.
        folder: Where to.
    """
    from matplotlib.figure import Figure

    from models.sparse_wavernn.wav import WavFile

    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(12, 1.6 * len(sounds) + 0.4), layout="constrained")
    panels = figure.subplots(len(sounds), 1, squeeze=False)[:, 0]
    for axes, (name, parts) in zip(panels, sounds.items(), strict=True):
        joined = distances.in_a_row(parts, sample_rate)
        file = re.sub(r"\W+", "-", name).strip("-")
        with WavFile(folder / f"{file}.wav", sample_rate) as wav:
            wav.write(joined)
        mel = audio.mel_spectrogram(audio.from_int16(joined), sample_rate).numpy()
        seconds = len(joined) / sample_rate
        axes.imshow(
            mel.T, origin="lower", aspect="auto", vmin=audio.SILENCE, vmax=-2.0,
            extent=(0, seconds, 0, mel.shape[1]), interpolation="nearest",
        )  # fmt: skip
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    panels[-1].set_xlabel("seconds", fontsize=8)
    figure.savefig(folder / "spectrograms.png", dpi=80)


def of_frames(mel, sample_rate, iterations=ITERATIONS):
    """Return sound whose frames are about these, int16 [frames * hop].

    Griffin and Lim 1984, Signal estimation from modified short-time Fourier transform:
    phases of the last sound, magnitudes of the frames, and again.

    Args:
        mel: [frames, mels], as `mel_spectrogram` makes them.
        sample_rate: Samples in a second.
        iterations: How often.
    """
    hop = audio.hop_length(sample_rate)
    window = 4 * hop
    weights, inverse = _bands(sample_rate, mel.shape[1])
    wanted = np.maximum(np.exp(mel) @ inverse, 0.0).astype("float32")
    size = 2 * (len(weights) - 1)
    to = functools.partial(
        tf.signal.stft, frame_length=window, frame_step=hop, fft_length=size
    )
    back = functools.partial(
        tf.signal.inverse_stft, frame_length=window, frame_step=hop, fft_length=size,
        window_fn=tf.signal.inverse_stft_window_fn(hop),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    phase = np.exp(2j * np.pi * rng.random(wanted.shape)).astype("complex64")
    for _ in range(iterations):
        sound = back(wanted * phase)
        found = to(sound).numpy()
        phase = found / np.maximum(np.abs(found), 1e-9)
    left = (window - hop) // 2
    sound = back(wanted * phase).numpy()[left : left + len(mel) * hop]
    return audio.to_int16(sound)


@functools.lru_cache(maxsize=2)
def _bands(sample_rate, mels):
    """Return the weights [bins, mels] of bands, and how bins follow from bands."""
    window, weights = features.tables(sample_rate, mels)
    weights = weights.astype("float64") * window.sum()
    # A bin is the mean of the bands that see it.
    seen = np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    height = np.maximum(weights.sum(axis=0), 1e-9)
    return weights, (weights / seen / height).T * window.sum()
