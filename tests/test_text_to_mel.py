"""models/text_to_mel.py: the path against all paths, learning, speaking."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.datasets import audio
from keras_es.datasets.audio import sentences
from models import text_to_mel
from models.monotonic_path import DIAGONAL, best_path


def all_paths(length, width):
    """Every monotonic path from the first to the last of `width` characters."""
    for cuts in itertools.combinations(range(1, length), width - 1):
        yield np.searchsorted(cuts, np.arange(length), side="right")


def test_the_path_is_the_cheapest_of_all():
    generator = np.random.default_rng(0)
    sizes = [(7, 3), (8, 5), (6, 6), (8, 1)]
    costs = generator.uniform(0, 3, (4, 8, 6)).astype("float32")
    frames, characters = (np.array(c, "int32") for c in zip(*sizes, strict=True))
    found = best_path(costs, characters, frames).numpy()
    for row, (length, width), cost in zip(found, sizes, costs, strict=True):
        t = (np.arange(length) + 0.5) / length
        j = (np.arange(width) + 0.5) / width
        gap = (t[:, None] - j[None]) ** 2
        total = cost[:length, :width] + DIAGONAL * gap
        best = min(
            all_paths(length, width), key=lambda p: total[np.arange(length), p].sum()
        )
        np.testing.assert_array_equal(row[:length], best)
        assert np.all(row[length:] == width - 1)


def test_without_anything_known_the_time_is_divided_evenly():
    path = best_path(np.zeros((1, 12, 4), "float32"), [4], [12])
    np.testing.assert_array_equal(path[0], np.repeat(np.arange(4), 3))


LASTS = {" ": 3, "a": 4, "b": 8, "c": 2}
"""Frames of the sound of each character in the language of these tests."""


def utterance(text):
    """What a speaker says whose characters have a band and a duration each."""
    frames = []
    for character in f" {text} ":
        band = np.full(80, -9.0, "float32")
        band[20 * " abc".index(character) :][:20] = -1.0
        frames += [band] * LASTS[character]
    mel = np.array(frames)
    samples = np.zeros(100 * len(mel), "int16")
    return audio.Utterance(text, text, "me", None, samples, mel)


@pytest.fixture(scope="module")
def trained():
    """A small model of eleven words."""
    keras.utils.set_random_seed(0)
    words = "abc cab bca acb cba ab ba ca ac bc cb".split()
    data = audio.AudioDataset(
        "toy", 8000, [utterance(w) for w in words], [utterance("bac")]
    )
    characters = sentences.characters_of(data)
    rows = sentences.Sentences(data, characters)
    plain = text_to_mel.build(characters, data.speakers, 8000, units=32, depth=1)
    dense = [f"text_to_mel/{name}" for name in text_to_mel.DENSE_LAYERS]
    model = keras_es.sparsify(plain, 0.5, exclude=dense)
    rate = keras.optimizers.schedules.CosineDecay(0.02, 200)
    model.compile(
        keras_es.optimizers.RigL(keras.optimizers.Adam(rate), end_step=100),
        jit_compile=False,
        **text_to_mel.compile_arguments(),
    )
    batches = rows.batches(8, seed=0).map(lambda x: (x, x["frames"]))
    model.fit(batches, steps_per_epoch=200, shuffle=False, verbose=0)
    return model, rows


def test_a_word_that_was_held_out_is_spoken(trained, tmp_path):
    model, rows = trained
    test = rows.test_batches(4).map(lambda x: (x, x["frames"]))
    logs = model.evaluate(test, return_dict=True, verbose=0)
    assert logs["mel_error"] < 0.5, logs  # of 8 nepers between band and floor
    layer = keras_es.strip_masks(model).get_layer("text_to_mel")
    [mel] = layer.speak(["BAC"])
    wanted = utterance("bac").mel
    assert mel.dtype == "float32" and abs(len(mel) - len(wanted)) <= 3
    # Each character has its band, in the right order.
    bands = mel.reshape(len(mel), 4, 20).mean(-1).argmax(1)
    order = [int(b) for b, _ in itertools.groupby(bands)]
    assert order == [0, 2, 1, 3, 0]
    [slow] = layer.speak(["bac"], speed=np.float32(0.5))
    assert 1.6 * len(mel) < len(slow) < 2.4 * len(mel)
    # Masks, optimizer and vocabulary come back from a file.
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    [same] = again.get_layer("text_to_mel").speak(["bac"])
    np.testing.assert_allclose(same, mel, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bac",), "expected a list of texts"),
        ((["xyz"],), "of the characters 'abc', which the model was trained with; not"),
        ((["a"], "you"), "expected a speaker of \\['me'\\]"),
        ((["a", 1],), "expected a list of texts"),
        ((iter(["a"]),), "expected a list of texts"),
        *(
            ((["a"], "me", speed), r"`speed` must be a number in \[0.1, 10.0\]. Rec")
            for speed in (0, -1, 1e-30, 11, np.inf, np.nan, True, "1")
        ),
    ],
)
def test_what_cannot_be_spoken(trained, arguments, message):
    with pytest.raises(ValueError, match=message):
        trained[0].get_layer("text_to_mel").speak(*arguments)


def test_characters_are_numbered_from_one():
    layer = text_to_mel.TextToMel(" ab", ["me"], 8000, units=4, depth=1)
    tokens = tf.constant([[1, 2, 0, 0]])
    hidden = layer.encode(tokens, tf.constant([[0]]))
    assert hidden.shape == (1, 4, 4) and np.all(hidden[0, 2:] == 0)
