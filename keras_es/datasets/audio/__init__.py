"""Speech: files to samples, samples to features, both to batches."""

from keras_es.datasets.audio.dataset import AudioDataset
from keras_es.datasets.audio.decoding import (
    BadAudioError,
    from_int16,
    read,
    resample,
    to_int16,
)
from keras_es.datasets.audio.features import (
    HOP_SECONDS,
    MELS,
    SILENCE,
    hop_length,
    mel_spectrogram,
)
from keras_es.datasets.audio.load import HOLD_OUT, NAMES, is_audio, load
from keras_es.datasets.audio.utterances import Utterance

__all__ = [
    "HOLD_OUT",
    "HOP_SECONDS",
    "MELS",
    "NAMES",
    "SILENCE",
    "AudioDataset",
    "BadAudioError",
    "Utterance",
    "from_int16",
    "hop_length",
    "is_audio",
    "load",
    "mel_spectrogram",
    "read",
    "resample",
    "to_int16",
]
