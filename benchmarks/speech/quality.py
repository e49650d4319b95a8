"""ViSQOL, where its package is installed."""

import numpy as np

from benchmarks.speech import distances
from keras_es.datasets.audio import from_int16

RATE = 16_000
"""Samples in a second that its model of speech was made for."""


def by_speaker(utterances, sounds, sample_rate):
    """Return the score of each speaker's digits in a row, 1 to 5; None without it.

    A digit alone is shorter than what it looks at.

    Args:
        utterances: Recordings.
        sounds: int16 arrays, what is compared with each.
        sample_rate: Samples in a second.
    """
    try:
        from visqol import VisqolApi
    except ImportError:
        print("ViSQOL: skipped, pip install visqol-python", flush=True)
        return None
    api = VisqolApi()
    # The polynomial of its paper: the lattice needs another library.
    api.create(mode="speech", use_lattice_model=False)
    scores = []
    for speaker in sorted({said.speaker for said in utterances}):
        own = [i for i, said in enumerate(utterances) if said.speaker == speaker]
        pair = [
            resampled([each[i] for i in own], sample_rate)
            for each in ([said.samples for said in utterances], sounds)
        ]
        scores.append(round(float(api.measure_from_arrays(*pair, RATE).moslqo), 4))
    return scores


def resampled(sounds, sample_rate):
    """Return sounds one after the other at 16 kHz, floats.

    Args:
        sounds: int16 arrays.
        sample_rate: Their samples in a second.
    """
    from scipy.signal import resample_poly

    joined = distances.in_a_row(sounds, sample_rate)
    floats = from_int16(joined).astype("float64")
    factor = np.gcd(RATE, sample_rate)
    return resample_poly(floats, RATE // factor, sample_rate // factor)
