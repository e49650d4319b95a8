"""How far speech is from a recording that it should repeat, frame by frame.

Both must be aligned, as copy synthesis is: sound of a recording's own frames. All take
integers of 16 bits. None of these says how it sounds to a listener.
"""

import numpy as np
import tensorflow as tf

from keras_es.datasets.audio import from_int16, hop_length, mel_spectrogram

BANDS, COEFFICIENTS = 40, 13
"""Of the mel cepstrum."""

DECIBELS = 20.0 / np.log(10.0)
"""Of a neper."""

QUIET = 1e-5
"""Least magnitude of a spectrum; a sine wave of full scale has about 0.5."""

PITCHES = (60.0, 400.0)
"""Hz; of voices."""

VOICED = 0.5
"""Autocorrelation at the period from which on a frame is voiced."""

PAUSE = 0.1
"""Seconds of silence between digits that are heard in a row."""

HEARD = 40.0
"""Frames count for the pitch that are so many dB below the loudest at most."""


def in_a_row(sounds, sample_rate):
    """Return int16 sounds one after the other, with pauses.

    Args:
        sounds: int16 arrays.
        sample_rate: Samples in a second.
    """
    pause = np.zeros(round(PAUSE * sample_rate), "int16")
    return np.concatenate([part for sound in sounds for part in (sound, pause)])


def mel_cepstrum(samples, sample_rate):
    """Return mel cepstra without the level, [frames, COEFFICIENTS].

    c_d = 2 / N sum_n log mel_n cos(pi d (n + 1/2) / N), for d = 1, 2, ...; so that
    log mel_n = mean + sum_d c_d cos(...).

    Args:
        samples: int16 [T].
        sample_rate: Samples in a second.
    """
    mel = mel_spectrogram(from_int16(samples), sample_rate, BANDS)
    # TensorFlow's are orthonormal.
    cepstrum = tf.signal.mfccs_from_log_mel_spectrograms(mel) * np.sqrt(2.0 / BANDS)
    return cepstrum[:, 1 : COEFFICIENTS + 1].numpy().astype("float64")


def cepstral_distortion(one, other):
    """Return the mel cepstral distortion in dB, averaged over frames.

    10 / ln 10 sqrt(2 sum_d (c_d - c'_d)^2): the root mean square over bands of the
    difference of levels, as far as 13 coefficients and no shift of all bands tell it
    (Kubichek 1993, Mel-cepstral distance measure for objective speech quality
    assessment).

    Args:
        one: [frames, coefficients], as `mel_cepstrum`.
        other: The same of what is compared.
    """
    squares = np.sum(np.square(one - other), axis=-1)
    return float(np.mean(DECIBELS / 2 * np.sqrt(2.0 * squares)))


def spectrum(samples, sample_rate):
    """Return magnitudes of windows of 50 ms, one each 12.5 ms, [frames, bins]."""
    hop = hop_length(sample_rate)
    window = 4 * hop
    padded = np.pad(from_int16(samples), (window // 2, window // 2))
    found = tf.abs(tf.signal.stft(padded, window, hop)) / (window / 2)
    return np.maximum(found.numpy().astype("float64"), QUIET)


def log_spectral_distance(one, other):
    """Return the log-spectral distance in dB, averaged over frames.

    sqrt(mean over bins of (20 log10 |X| / |Y|)^2).

    Args:
        one: [frames, bins], as `spectrum`.
        other: The same of what is compared.
    """
    level = DECIBELS * np.log(one / other)
    return float(np.mean(np.sqrt(np.mean(np.square(level), axis=-1))))


def envelope(samples, sample_rate):
    """Return the level of each hop in dB, [T // hop]; 16 bits end at -96."""
    hop = hop_length(sample_rate)
    rows = from_int16(samples)[: len(samples) // hop * hop].reshape(-1, hop)
    power = np.mean(np.square(rows, dtype="float64"), axis=1)
    return 10.0 * np.log10(np.maximum(power, 2.0**-32))


def correlation(one, other):
    """Return Pearson's correlation; 0 of what does not change."""
    one, other = one - one.mean(), other - other.mean()
    norm = np.sqrt(np.sum(one**2) * np.sum(other**2))
    return float(np.sum(one * other) / norm) if norm > 0 else 0.0


def pitch_track(samples, sample_rate):
    """Return the pitch in Hz of each hop, and NaN where there is none.

    The lag in `PITCHES` of the largest normalized autocorrelation of 50 ms, if it is
    at least `VOICED` and the frame is not silent.

    Args:
        samples: int16 [T].
        sample_rate: Samples in a second.
    """
    hop = hop_length(sample_rate)
    width = 4 * hop
    rest = (width - hop) // 2
    padded = np.pad(from_int16(samples).astype("float64"), (rest, width))
    count = len(samples) // hop
    rows = np.stack([padded[i * hop : i * hop + width] for i in range(count)])
    rows = rows - rows.mean(axis=1, keepdims=True)
    low, high = (int(sample_rate / f) for f in PITCHES[::-1])
    lags = np.arange(low, min(high, width - hop) + 1)
    found = np.stack([_alike(rows[:, lag:], rows[:, :-lag]) for lag in lags], axis=1)
    level = np.mean(np.square(rows), axis=1)
    heard = level > level.max(initial=0.0) * 10.0 ** (-HEARD / 10)
    # The first of nearly equal peaks: multiples of a period are no worse than it.
    best = np.argmax(found >= 0.9 * found.max(axis=1, keepdims=True), axis=1)
    best = _climb(found, best)
    voiced = heard & (found[np.arange(count), best] >= VOICED)
    return np.where(voiced, sample_rate / lags[best], np.nan)


def _alike(one, other):
    """Return the correlation of rows; 0 of silent ones."""
    norm = np.sqrt(np.sum(one**2, axis=1) * np.sum(other**2, axis=1))
    return np.sum(one * other, axis=1) / np.maximum(norm, 1e-12)


def _climb(found, best):
    """Return the peak that begins at `best`, of each row."""
    rows = np.arange(len(found))
    for _ in range(found.shape[1]):
        after = np.minimum(best + 1, found.shape[1] - 1)
        rising = found[rows, after] > found[rows, best]
        if not rising.any():
            break
        best = np.where(rising, after, best)
    return best


def pitch_agreement(one, other):
    """Return how the pitch of speech follows that of a recording.

    Args:
        one: Pitch of the recording, as `pitch_track`.
        other: That of the speech.

    Returns:
        A dict: the share of the recording's voiced frames that are `voiced` in the
        speech too and within a fifth of its pitch (`near`), and the median of the
        distance of those, `cents`; NaN where there are none.
    """
    known = np.isfinite(one)
    both = known & np.isfinite(other)
    ratio = other[both] / one[both]
    near = np.abs(ratio - 1.0) <= 0.2
    count = known.sum()
    cents = np.abs(1200 * np.log2(ratio[near]))
    return {
        "voiced": float(both.sum() / count) if count else np.nan,
        "near": float(near.sum() / count) if count else np.nan,
        "cents": float(np.median(cents)) if near.any() else np.nan,
    }


def bootstrap(values, resamples=10_000, level=0.95, seed=0):
    """Return the mean of values and its interval, (mean, low, high).

    Percentiles of the means of samples drawn with replacement (Efron 1979).

    Args:
        values: [n]; of one utterance each.
        resamples: How many.
        level: Share of them in the interval.
        seed: Integer.
    """
    values = np.asarray(values, "float64")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)
