"""Features against NumPy, and batches that are a function of (seed, step)."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_es.datasets import audio
from keras_es.datasets.audio import sentences


def reference(samples, rate, mels=80):
    """The equations of `mel_spectrogram`, frame by frame, in float64."""
    hop = round(0.0125 * rate)
    length, size = 4 * hop, 1
    while size < length:
        size *= 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)

    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    frequencies = mel(np.arange(size // 2 + 1) * rate / size)
    step = mel(rate / 2) / (mels + 1)
    frames = []
    for i in range(len(samples) // hop):
        x = np.zeros(length)
        for n in range(length):
            t = i * hop + n - 3 * hop // 2
            if 0 <= t < len(samples) // hop * hop:
                x[n] = window[n] * samples[t]
        spectrum = np.abs(np.fft.rfft(x, size)) / window.sum()
        bands = [
            np.sum(spectrum * np.maximum(0, 1 - np.abs(frequencies / step - b)))
            for b in range(1, mels + 1)
        ]
        frames.append(np.log(np.maximum(bands, 1e-5)))
    return np.array(frames)


@pytest.mark.parametrize("rate", [8000, 22050])
def test_features_are_the_equations(rate):
    hop = audio.hop_length(rate)
    samples = np.random.default_rng(0).normal(0, 0.1, 6 * hop + 17)
    samples[: 2 * hop] *= np.sin(np.arange(2 * hop))
    expected = reference(samples, rate)
    found = audio.mel_spectrogram(samples.astype("float32"), rate)
    assert found.dtype == "float32" and found.shape == (6, 80)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    both = tf.function(audio.mel_spectrogram, jit_compile=True)(
        np.stack([samples, samples[::-1]]).astype("float32"), rate
    )
    np.testing.assert_allclose(both[0], expected, atol=2e-4)


def test_a_frame_is_centred_on_its_samples():
    """A click in the middle of frame 5 is loudest there, and alike on both sides."""
    samples = np.zeros(1200, "float32")
    samples[550] = 1.0
    loud = np.exp(audio.mel_spectrogram(samples, 8000).numpy()).sum(-1)
    assert loud.argmax() == 5
    np.testing.assert_allclose(loud[4], loud[6], rtol=1e-4)
    assert np.all(loud[[3, 7]] < loud[4])
    silence = audio.mel_spectrogram(np.zeros(800), 8000)
    np.testing.assert_allclose(silence, audio.SILENCE, rtol=1e-6)


@pytest.mark.parametrize("value", [999, 8000.0, None])
def test_rates_that_are_none(value):
    with pytest.raises(ValueError, match="`sample_rate` must be"):
        audio.mel_spectrogram(np.zeros(800), value)


def test_less_than_a_hop_has_no_frames():
    compiled = tf.function(audio.mel_spectrogram, jit_compile=True)
    for shape in ((0,), (99,), (2, 99)):
        samples = np.zeros(shape, "float32")
        for found in (audio.mel_spectrogram(samples, 8000), compiled(samples, 8000)):
            assert found.shape == (*shape[:-1], 0, 80)


@pytest.mark.parametrize(
    ("samples", "received"),
    [
        (1.0, "samples of float32 and shape \\(\\)"),
        ("abc", "samples of string"),
        (np.zeros(800, "int16"), "samples of int16 and shape \\(800,\\)"),
        (np.zeros(800, "complex64"), "samples of complex64"),
        ([[0.0], [0.0, 1.0]], "samples=\\[\\[0.0"),
    ],
)
def test_samples_that_are_none(samples, received):
    with pytest.raises(
        ValueError, match=f"floats in.*from_int16.*Received: {received}"
    ):
        audio.mel_spectrogram(samples, 8000)


def said(name, frames, text="a b", speaker="me"):
    """An utterance whose samples tell where they are from, as do its features."""
    start = 1000 * (ord(name) - ord("a"))
    samples = np.repeat(np.arange(frames, dtype="int16") + start, 100)
    mel = np.repeat(np.arange(frames, dtype="float32")[:, None] + start, 80, 1)
    return audio.Utterance(name, text, speaker, None, samples, mel)


@pytest.fixture(scope="module")
def data():
    train = [said("a", 9), said("b", 3), said("c", 30, "b", "you")]
    return audio.AudioDataset("tiny", 8000, train, [said("d", 11), said("e", 4)])


def test_crops_have_the_features_of_their_samples(data):
    batches = list(data.crops(64, 5, seed=1, context=2).take(2))
    for batch in batches:
        samples, mel = batch["samples"].numpy(), batch["mel"].numpy()
        assert samples.dtype == "int32" and samples.shape == (64, 500)
        assert mel.shape == (64, 9, 80)
        inside = np.arange(5) + samples[:, :1]
        short = samples[:, 0] == 1000  # three frames, filled up
        np.testing.assert_array_equal(samples[~short, ::100], inside[~short])
        assert np.all(samples[short, 300:] == 0)
        heard = mel[:, 2:-2, 0]
        np.testing.assert_array_equal(heard[~short], inside[~short])
        assert np.all(heard[short, 3:] == audio.SILENCE)
        first = samples[:, 0] % 1000 == 0
        assert np.all(mel[first, :2] == mel[first, 2:3])
        np.testing.assert_array_equal(mel[~first, 1, 0], samples[~first, 0] - 1)
    # Every place of every utterance is as likely: 5 of "a", 1 of "b", 26 of "c".
    drawn = np.concatenate(
        [b["samples"][:, 0] for b in data.crops(2000, 5, seed=2).take(2)]
    )
    share = np.mean(drawn == 1000)
    assert abs(share - 1 / 32) < 5 * np.sqrt(1 / 32 / 4000)
    assert set(drawn) == {*range(5), 1000, *range(2000, 2026)}


@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        ({"samples": np.full(900, 0.3, "float32")}, "'a' with samples in float32"),
        ({"mel": np.zeros((9, 40), "float32")}, r"features in float32 of \(9, 40\)"),
        ({"mel": np.zeros((9, 80))}, "features in float64"),
        ({"mel": np.zeros((8, 80), "float32")}, r"\(900,\) samples and \(8, 80\)"),
        (None, "'a'"),
    ],
)
def test_utterances_that_do_not_fit(wrong, received):
    bad = "a" if wrong is None else dataclasses.replace(said("a", 9), **wrong)
    with pytest.raises(ValueError, match=f"Received: .*{received}"):
        audio.AudioDataset("tiny", 8000, [said("b", 9)], [bad])


@pytest.mark.parametrize("kind", ["crops", "sentences"])
def test_a_later_start_continues_the_same_stream(data, kind):
    def stream(seed, first_step=0):
        if kind == "crops":
            return data.crops(3, 4, seed=seed, first_step=first_step)
        batches = sentences.Sentences(data, sentences.characters_of(data))
        return batches.batches(3, seed=seed, first_step=first_step)

    def flat(batches):
        return [{k: v.numpy().tobytes() for k, v in batch.items()} for batch in batches]

    whole = flat(stream(5).take(6))
    assert flat(stream(5, 4).take(2)) == whole[4:]
    assert flat(stream(6).take(6)) != whole
    assert len({batch["mel"] for batch in whole}) > 1


def test_test_crops_go_through_all_once(data):
    [batch] = data.test_crops(10, 4, context=1)
    assert batch["samples"][:, 0].numpy().tolist() == [3000, 3004, 4000]
    assert data.crop_count(5) == 9 and data.hop == 100
    assert data.seconds() == 42 * 0.0125


def test_sentences_are_filled_up_and_all_are_tested(data):
    characters = sentences.characters_of(data)
    assert characters == " ab"
    lines = []
    found = sentences.Sentences(data, characters, lines.append)
    # "b" of three frames cannot be " a b ", which has five characters.
    assert [u.id for u, _, _ in found.train] == ["a", "c"]
    assert lines == [
        f"{name}: skipped, its text takes at least 5 frames to say, and it has {frames}"
        for name, frames in (("b", 3), ("e", 4))
    ]
    [batch] = found.test_batches(8)
    assert batch["frames"].numpy().tolist() == [[11]]
    assert batch["tokens"].shape == (1, 8) and batch["mel"].shape == (1, 16, 80)
    assert np.all(batch["mel"][0, 11:] == audio.SILENCE)
    np.testing.assert_array_equal(batch["tokens"][0, :5], [1, 2, 1, 3, 1])
    assert found.steps_per_epoch(2) == 1
    short = audio.AudioDataset("tiny", 8000, data.train, [said("e", 4)])
    with pytest.raises(ValueError, match="no recording for test is as long .* 'tiny'"):
        sentences.Sentences(short, characters, lines.append)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a text of the characters 'ab'"),
        ("abc", "not \\['c'\\]"),
    ],
)
def test_texts_that_are_not_known(text, message):
    with pytest.raises(ValueError, match=message):
        sentences.encode(text, " ab")
