"""benchmarks.speech: distances of sound against hand numbers, tables, samples."""

import wave
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.speech import __main__ as speech
from benchmarks.speech import distances, listener, quality, samples, sound
from keras_es.datasets import audio

RATE = 8000


@pytest.fixture(scope="module")
def noise():
    return np.round(np.random.default_rng(0).normal(0, 3000, 4000)).astype("int16")


def tone(frequency, seconds=0.5):
    """A voice of eight harmonics."""
    time = np.arange(round(seconds * RATE)) / RATE
    harmonics = sum(np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, 9))
    return np.round(6000 * harmonics).astype("int16")


def test_mel_cepstra_are_the_cosines_of_their_bands(noise):
    mel = audio.mel_spectrogram(noise / np.float32(32768), RATE, distances.BANDS)
    place = np.pi * (np.arange(distances.BANDS) + 0.5) / distances.BANDS
    cosines = np.cos(place[:, None] * np.arange(1, distances.COEFFICIENTS + 1))
    expected = 2 / distances.BANDS * mel.numpy() @ cosines
    found = distances.mel_cepstrum(noise, RATE)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_distortion_is_that_of_one_coefficient():
    """10 / ln 10 sqrt 2 = 6.1415 for each, and its root mean square over bands."""
    one = np.zeros((5, distances.COEFFICIENTS))
    other = one.copy()
    other[:, 3] = 0.5
    found = distances.cepstral_distortion(one, other)
    assert found == pytest.approx(0.5 * 6.14185, rel=1e-4)
    place = np.pi * (np.arange(40) + 0.5) / 40
    levels = 20 / np.log(10) * 0.5 * np.cos(4 * place)
    assert found == pytest.approx(np.sqrt(np.mean(levels**2)), rel=1e-6)


def test_a_gain_is_a_distance_of_spectra_alone(noise):
    spectra = [distances.spectrum(s, RATE) for s in (noise, 2 * noise)]
    level = 20 * np.log10(2)
    assert distances.log_spectral_distance(*spectra) == pytest.approx(level, rel=1e-5)
    assert distances.log_spectral_distance(spectra[0], spectra[0]) == 0.0
    cepstra = [distances.mel_cepstrum(s, RATE) for s in (noise, 2 * noise)]
    assert distances.cepstral_distortion(*cepstra) < 1e-3
    envelopes = [distances.envelope(s, RATE) for s in (noise, 2 * noise)]
    np.testing.assert_allclose(envelopes[1] - envelopes[0], level, rtol=1e-6)
    assert distances.correlation(*envelopes) == pytest.approx(1.0)
    assert distances.correlation(np.ones(3), np.arange(3.0)) == 0.0


def test_a_sine_of_full_scale_has_a_magnitude_of_half():
    sine = np.round(32767 * np.sin(2 * np.pi * 1000 * np.arange(4000) / RATE))
    assert distances.spectrum(sine, RATE)[20].max() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("frequency", [80.0, 125.0, 310.0])
def test_the_pitch_is_that_of_a_voice(frequency):
    found = distances.pitch_track(tone(frequency), RATE)[4:-4]
    np.testing.assert_allclose(found, frequency, rtol=0.03)


def test_noise_and_silence_have_no_pitch(noise):
    assert np.isfinite(distances.pitch_track(noise, RATE)).mean() < 0.1
    assert not np.isfinite(distances.pitch_track(0 * noise, RATE)).any()


def test_agreement_of_pitches():
    one = np.array([100.0, 100.0, 100.0, 100.0, np.nan])
    other = np.array([100.0, 200.0, 100.0 * 2 ** (1 / 12), np.nan, 150.0])
    found = distances.pitch_agreement(one, other)
    assert found == {"voiced": 0.75, "near": 0.5, "cents": pytest.approx(50.0)}
    silent = distances.pitch_agreement(np.full(3, np.nan), other[:3])
    assert np.isnan(silent["near"]) and np.isnan(silent["cents"])


def test_bootstrap_intervals_cover_the_mean():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        mean, low, high = distances.bootstrap(rng.gamma(4.0, size=40), 400)
        assert low < mean < high
        covered += low <= 4.0 <= high
    # 95 % but for the finite sample; 5 standard errors are 0.07.
    assert covered / 300 > 0.95 - 0.07
    assert distances.bootstrap([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_loudness_says_nothing_to_the_listener(noise):
    found = listener.frames([noise, 3.0 * noise, np.zeros(9000)], RATE)
    assert found.shape == (3, listener.FRAMES, listener.BANDS, 1)
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    assert np.isfinite(found).all() and np.abs(found[0]).max() < 4


def test_sound_of_frames_has_these_frames():
    mel = audio.mel_spectrogram(tone(150.0) / np.float32(32768), RATE).numpy()
    made = samples.of_frames(mel, RATE, iterations=16)
    assert made.shape == (4000,) and made.dtype == np.int16
    again = audio.mel_spectrogram(made / np.float32(32768), RATE).numpy()
    loud = mel > mel.max() - 3
    assert np.abs(again - mel)[loud].mean() < 0.6


def test_digits_in_a_row_are_resampled(noise):
    found = quality.resampled([noise, noise], RATE)
    assert len(found) == 2 * (4000 + 800) * 2 and np.abs(found).max() < 1


def test_utterances_are_of_all_speakers_and_digits():
    names = [f"{d}_{s}_{i}" for d in range(3) for s in ("ann", "bob") for i in (4, 1)]
    said = [SimpleNamespace(id=n, speaker=n.split("_")[1]) for n in names]
    found = [u.id for u in sound.chosen(said, 6)]
    assert found == [f"{d}_{s}_1" for s in ("ann", "bob") for d in range(3)]


def row(method, units=224, sparsity=0.0, **own):
    names = {"seed": 0, "epochs": 1, "recordings": 20, "frames": 4, "batch": 16}
    return own | names | {
        "method": method, "units": units, "sparsity": sparsity, "utterances": 4
    }  # fmt: skip


def test_tables_show_differences_from_dense():
    rows = [
        row("recorded", 0, heard=0.95),
        row("none", distortion=[1.0, 2.0, 3.0, 4.0], spectral=[5.0] * 4, heard=0.5),
        row(
            "rigl", sparsity=0.95, distortion=[1.5, 2.5, 3.5, 4.5], spectral=[4.0] * 4,
            heard=0.25, heard_text=0.1, envelope=0.5, cents=None,
        ),
    ]  # fmt: skip
    shown = sound.table(rows)
    assert "| dense | 0% | 1 | 2.50 | 5.00 | not measured |" in shown
    differences = "3.00 (+0.50: +0.50 to +0.50) | 4.00 (-1.00: -1.00 to -1.00) "
    assert f"| rigl | 95% | 1 | {differences}" in shown
    assert "| rigl | 95% | 1 | 0.50 |  |  |  | 25% | 10% |" in shown
    assert "| recorded |  |  |  |  |  |  | 95% |  |" in shown


def test_samples_are_written_with_their_picture(noise, tmp_path):
    samples.keep({"recorded": [noise], "rigl 95%, texts": [noise]}, RATE, tmp_path)
    with wave.open(str(tmp_path / "rigl-95-texts.wav")) as file:
        assert file.getframerate() == RATE and file.getnframes() == 4800
    assert (tmp_path / "spectrograms.png").stat().st_size > 3000


def test_no_voice_is_no_table(tmp_path):
    with pytest.raises(SystemExit, match="no finished run"):
        speech.main(["--suite=sound", f"--work={tmp_path}"])
