"""Log-mel frames of audio: what a vocoder hears, and what text is turned into."""

import functools

import numpy as np
import tensorflow as tf

from keras_es._arguments import integer

MELS = 80
"""Bands of a frame."""

HOP_SECONDS = 0.0125
"""From the beginning of a frame to that of the next."""

FLOOR = 1e-5
"""Least magnitude of a band; full scale is about 1, and 16 bits end at 3e-5."""

SILENCE = float(np.log(np.float32(FLOOR)))
"""What all bands of digital silence are."""

LOWEST_RATE = 1000
"""Samples in a second, at least."""


def hop_length(sample_rate: int) -> int:
    """Return the samples of a hop, 12.5 ms rounded: 100 at 8 kHz, 276 at 22.05 kHz.

    Args:
        sample_rate: Samples in a second, at least 1,000.

    Raises:
        ValueError: If it is no such integer.

    Example:

    >>> [keras_es.datasets.audio.hop_length(r) for r in (8000, 22050, 24000)]
    [100, 276, 300]
    """
    return round(HOP_SECONDS * integer(LOWEST_RATE)("sample_rate", sample_rate))


def mel_spectrogram(samples, sample_rate: int, mels: int = MELS) -> tf.Tensor:
    """Return the log-mel frames of audio.

    Frame i is centred on the samples i·hop … (i+1)·hop, with hop = `hop_length`:

        x_i[n] = w[n] s[i·hop + n − 3·hop/2],        0 ≤ n < 4·hop,
        mel_i  = log max(M |FFT(x_i)| / Σ w, 1e-5),

    with s zero outside of what was given, w the periodic Hann window, an FFT of the
    next power of two, and M triangles that are equally wide on the mel scale
    2595 log10(1 + f / 700) from 0 to half of the rate. Bands that are narrower than
    two bins of the FFT may be empty; they are silent then.

    TensorFlow alone: for `tf.data`, under XLA, and in a SavedModel.

    Args:
        samples: Floats in [-1, 1] of shape [..., T].
        sample_rate: Samples in a second, at least 1,000.
        mels: Number of bands, at least 1.

    Returns:
        float32 tensor [..., T // hop, mels], at least log 1e-5 = -11.5. A sine wave of
        full scale is about -0.7 in the band of its frequency.

    Raises:
        ValueError: If `sample_rate` or `mels` is out of range, or `samples` are no
            floats of at least one dimension.

    Example:

    >>> wave = np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    >>> mel = keras_es.datasets.audio.mel_spectrogram(wave, 8000)
    >>> mel.shape, int(tf.argmax(mel[20]))
    (TensorShape([40, 80]), 37)
    """
    hop = hop_length(sample_rate)
    mels = integer(1)("mels", mels)
    samples = _floats(samples)
    window, weights = tables(int(sample_rate), mels)
    left = (len(window) - hop) // 2
    axes = [[0, 0]] * (samples.shape.rank - 1)
    # A frame for each whole hop, and none for what is left over at the end.
    used = tf.shape(samples)[-1] // hop * hop
    padded = tf.pad(samples[..., :used], [*axes, [left, len(window) - hop - left]])
    frames = tf.signal.frame(padded, len(window), hop)
    size = 2 * (weights.shape[0] - 1)
    # `rfft` would do so as well, but for no frames at all.
    ends = [*axes, [0, 0], [0, size - len(window)]]
    spectrum = tf.abs(tf.signal.rfft(tf.pad(frames * window, ends), [size]))
    return tf.math.log(tf.maximum(tf.matmul(spectrum, weights), FLOOR))


@functools.lru_cache(maxsize=8)
def tables(sample_rate, mels):
    """Return the window, and the weights [bins, mels] divided by the window's sum.

    Args:
        sample_rate: Samples in a second.
        mels: Number of bands.
    """
    length = 4 * hop_length(sample_rate)
    size = 1 << (length - 1).bit_length()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    bins = _mel(np.arange(size // 2 + 1) * sample_rate / size)
    edges = np.linspace(0.0, _mel(sample_rate / 2), mels + 2)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return window.astype("float32"), (weights / window.sum()).astype("float32")


def _floats(samples):
    """Return samples as a float32 tensor."""
    try:
        found = tf.convert_to_tensor(samples)
        what = f"samples of {found.dtype.name} and shape {found.shape}"
    except (TypeError, ValueError):
        found, what = None, f"samples={samples!r}"[:200]
    if found is None or not found.dtype.is_floating or not found.shape.rank:
        raise ValueError(
            "`samples` must be floats in [-1, 1] of shape [..., T]; `from_int16` makes "
            f"them of 16-bit integers. Received: {what}"
        )
    return tf.cast(found, tf.float32)


def _mel(frequency):
    return 2595.0 * np.log10(1.0 + frequency / 700.0)
