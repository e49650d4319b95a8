"""A listener that counts: a small network that tells which digit is said.

It is trained on recorded digits, in other loudness, place and noise than they have,
and is then asked about speech.
"""

import keras
import numpy as np

from keras_es.datasets import audio
from keras_es.datasets.audio.folder import DIGITS

BANDS, FRAMES = 40, 72
"""What it looks at: 0.9 s."""

LEVEL = 0.1
"""Root mean square of all that it hears, so that loudness says nothing."""

EPOCHS, BATCH, RATE = 6, 64, 0.003

NOISE = (10.0, 40.0)
"""dB that white noise is below the speech that is learned from."""


def frames(sounds, sample_rate):
    """Return the frames of sounds, all as loud, [n, FRAMES, BANDS, 1].

    What is longer is cut off at the end, what is shorter filled up with silence.

    Args:
        sounds: Arrays [T].
        sample_rate: Samples in a second.
    """
    length = FRAMES * audio.hop_length(sample_rate)
    rows = np.zeros((len(sounds), length), "float32")
    for row, samples in zip(rows, sounds, strict=True):
        level = np.sqrt(np.mean(np.square(samples, dtype="float64")))
        own = samples[:length] * (LEVEL / max(level, 1e-9))
        row[: len(own)] = own
    # Some hundred at once: spectra are large.
    parts = np.array_split(rows, -(-len(rows) // 300))
    found = [audio.mel_spectrogram(part, sample_rate, BANDS).numpy() for part in parts]
    return (np.concatenate(found)[..., None] + 6.0) / 3.0


def disturbed(said, sample_rate, rng):
    """Return an utterance that begins later, and every other time has noise.

    Args:
        said: `Utterance`.
        sample_rate: Samples in a second.
        rng: NumPy's generator.
    """
    before = rng.integers(0, 9) * audio.hop_length(sample_rate)
    samples = np.pad(said.samples.astype("float64"), (before, 0))
    if rng.random() < 0.5:
        return samples
    below = 10.0 ** (-rng.uniform(*NOISE) / 20)
    return samples + rng.normal(0.0, below * said.samples.std(), len(samples))


def build():
    """Return the network, frames to logits of the ten digits."""
    layers = [keras.Input((FRAMES, BANDS, 1))]
    for channels in (16, 32, 48):
        layers += [
            keras.layers.Conv2D(channels, 3, 2, padding="same", use_bias=False),
            # Few steps: statistics of the last ones.
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(len(DIGITS)),
    ]
    return keras.Sequential(layers)


def train(utterances, sample_rate, seed=0, epochs=EPOCHS):
    """Return a listener that has heard some utterances, each once in an epoch.

    Args:
        utterances: `Utterance`s whose text is a digit.
        sample_rate: Samples in a second.
        seed: Integer.
        epochs: Each with other noise.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = build()
    steps = -(-len(utterances) // BATCH) * epochs
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # On CPUs XLA's convolutions are slower.
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    digits = labels(utterances)
    for _ in range(epochs):
        sounds = [disturbed(said, sample_rate, rng) for said in utterances]
        model.fit(frames(sounds, sample_rate), digits, batch_size=BATCH, verbose=0)
    return model


def of_file(path, make):
    """Return the listener in a file, which is made if it is not there.

    Args:
        path: The file.
        make: Function that returns a listener.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make().save(path)
    return keras.models.load_model(path)


def labels(utterances):
    """Return the digits that are said."""
    return np.array([DIGITS.index(said.text) for said in utterances])


def heard(model, sounds, sample_rate):
    """Return the digits that a listener hears.

    Args:
        model: Of `train`.
        sounds: int16 arrays.
        sample_rate: Samples in a second.
    """
    return np.argmax(model.predict(frames(sounds, sample_rate), verbose=0), axis=1)


def by_held_out_speakers(utterances, sample_rate, folds=3):
    """Return the share of digits that is heard of speakers never heard before.

    Args:
        utterances: Of all speakers.
        sample_rate: Samples in a second.
        folds: Parts of the speakers, of which each is held out once.
    """
    speakers = sorted({said.speaker for said in utterances})
    right = 0
    for part in range(folds):
        away = speakers[part::folds]
        known = [said for said in utterances if said.speaker not in away]
        new = [said for said in utterances if said.speaker in away]
        model = train(known, sample_rate, seed=part)
        found = heard(model, [said.samples for said in new], sample_rate)
        right += int(np.sum(found == labels(new)))
    return right / len(utterances)
