"""train.py on a folder of recordings: results, resuming to the bit, wrong flags."""

import json
import signal
import wave

import numpy as np
import pytest

import models
import train
from keras_es import callbacks
from keras_es.datasets import audio
from keras_es.datasets.audio import cache
from keras_es.runs import identity, tasks
from keras_es.runs.speech import TextData
from keras_es.runs.vocoder import VocoderData, bits_of, drawn_along


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch):
    """Puts back the handler that train.main sets; keeps no features."""
    monkeypatch.setenv(cache.VARIABLE, "")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Spoken digits of a language that has tones for words."""
    place = tmp_path_factory.mktemp("recordings")
    for digit in (3, 7):
        for speaker in ("ann", "bob"):
            for index in (0, 5, 6):
                time = np.arange(2400) / 8000
                tone = 0.4 * np.sin(2 * np.pi * (200 + 100 * digit) * time)
                noise = np.random.default_rng(index).normal(0, 0.02, 2400)
                samples = np.round(32768 * (tone + noise)).astype("<i2")
                path = place / f"{digit}_{speaker}_{index}.wav"
                with wave.open(str(path), "wb") as file:
                    file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
                    file.writeframes(samples.tobytes())
    (place / "8_ann_9.wav").write_bytes(b"")
    return place


TINY = {
    "sparse_wavernn": ("--options=units=16,frames=2", "--batch_size=32"),
    "text_to_mel": ("--options=units=16", "--batch_size=4"),
}


def main(*flags):
    return train.main(["train.py", *flags])


def variables(workdir):
    model, progress, damaged = callbacks.AtomicCheckpoint.restore(
        workdir / "checkpoints"
    )
    assert not damaged
    return progress, [
        np.asarray(v) for v in (*model.variables, *model.optimizer.variables)
    ]


def flags_of(model, folder):
    return (
        f"--dataset={folder}", f"--model={model}", "--mask_optimizer=rigl",
        "--sparsity=0.5", "--epochs=1", "--jit_compile=false", *TINY[model],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.release
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    folder, tmp_path, monkeypatch, capsys
):
    flags = flags_of("sparse_wavernn", folder)
    assert main(*flags, f"--workdir={tmp_path / 'whole'}") == 0
    said = capsys.readouterr().out
    assert "8_ann_9: skipped, the file is empty" in said
    assert "minutes of" in said and "at 8,000 Hz" in said
    real = callbacks.AtomicCheckpoint.on_train_batch_end

    def stop(self, batch, logs=None):
        real(self, batch, logs)
        if self.progress.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as context:
        context.setattr(callbacks.AtomicCheckpoint, "on_train_batch_end", stop)
        assert main(*flags, f"--workdir={tmp_path / 'parts'}") == 143
    assert main(*flags, f"--workdir={tmp_path / 'parts'}") == 0
    (whole, ours), (parts, theirs) = (
        variables(tmp_path / name) for name in ("whole", "parts")
    )
    assert whole.step == parts.step == 3
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    a, b = (
        json.loads((tmp_path / name / "summary.json").read_text())
        for name in ("whole", "parts")
    )
    assert a["test_bits"] == b["test_bits"] and 0 < a["test_bits"] < 17
    assert a["input"] == {"sample_rate": 8000, "hop": 100, "mels": 80}
    assert "augment" not in a and a["hold_out"] == "sentence"
    assert (tmp_path / "parts" / "report.png").stat().st_size > 10_000
    events = b"".join(
        p.read_bytes() for p in (tmp_path / "whole/logs/validation").iterdir()
    )
    assert b"drawn_along_it" in events and b"WAVEfmt" in events


def utterances(*rows, level=100):
    """Return recordings of (name, text, speaker, hops), the last one for test."""
    said = [
        audio.Utterance(
            name, text, speaker, None, np.full(100 * hops, level, "int16"),
            np.zeros((hops, 80), "float32"),
        )
        for name, text, speaker, hops in rows
    ]  # fmt: skip
    return audio.AudioDataset("voice", 8000, said[:-1], said[-1:])


SAID = (("a", "one two", "ann", 30), ("b", "two", "bob", 20), ("c", "one", "bob", 20))


def changed(*rows, level=100):
    """Return what messages of both tasks say of other recordings than `SAID`."""
    differences = []
    for kind in (tasks.TEXT, tasks.VOCODER):
        before, now = (
            kind.identity(
                TextData(data) if kind is tasks.TEXT
                else VocoderData(data, 5, models.ALL["sparse_wavernn"])
            )
            for data in (utterances(*SAID), utterances(*rows, level=level))
        )  # fmt: skip
        before = json.loads(json.dumps(before))
        differences.append(identity.different(before, now))
    return differences


def test_other_recordings_are_other_data():
    assert changed(*SAID) == ["", ""]
    for said in changed(*SAID, level=101):
        assert said == "mean level: it had 100.0, now 101.0"
    for said in changed(*SAID[1:]):
        assert said.startswith("training recordings: it had 2, now 1, ")
    for said in changed(SAID[0], SAID[2], SAID[1]):
        assert said.startswith("digest of names and lengths: it had ")
    for said, part in {
        ("a", "one two!", "ann", 30): "characters: it had 6, now 7, digest of texts",
        ("a", "two one", "ann", 30): "digest of texts and speakers: it had ",
        ("a", "one two", "bob", 30): "speakers: it had 2, now 1, digest of texts",
    }.items():
        texts, sound = changed(said, *SAID[1:])
        # A run that learns from sound alone may go on.
        assert texts.startswith(part) and sound == ""


@pytest.mark.slow
@pytest.mark.release
def test_frames_are_learned_from_texts(folder, tmp_path):
    assert main(*flags_of("text_to_mel", folder), f"--workdir={tmp_path}") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert np.isfinite(summary["test_mel_error"]) and summary["steps"] == 2
    assert summary["layers"] and (tmp_path / "report.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model=lenet"], ["is for one of ["]),
        (["--options=augment=true"], ["no option 'augment', but sample_rate or"]),
        (["--data_dir=x"], ["is a folder itself", "--data_dir=x"]),
        (["--options=hold_out=word"], ["sentence or speaker, not hold_out=word"]),
        (["--options=units=7"], ["even number"]),
        (["--options=frames=0"], ["at least 1"]),
        (["--options=sample_rate=10"], ["at least 1000"]),
        (["--model=text_to_mel", "--options=frames=5"], ["no option 'frames'"]),
        (["--options=frames=500"], ["a piece must fit into a recording"]),
    ],
)
def test_wrong_flags_get_one_line(folder, tmp_path, monkeypatch, capsys, flags, parts):
    monkeypatch.chdir(tmp_path)
    assert main(f"--dataset={folder}", *flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    for part in parts:
        assert part in line
    assert not list(tmp_path.iterdir())


def test_images_have_no_models_of_speech(capsys):
    assert main("--model=sparse_wavernn") == 2
    line = capsys.readouterr().err
    assert "needs a folder with wav, flac or mp3" in line and "--dataset=digits" in line


def test_a_folder_without_recordings_is_called_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, part in {
        "empty": "the folder of that name has no wav, flac or mp3 file in it",
        "empty/": "files, and found none",
        "away/": "no such folder of recordings",
    }.items():
        assert main(f"--dataset={name}") == 2
        assert part in capsys.readouterr().err, name


def test_a_folder_without_texts_is_refused_in_one_line(folder, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for i, path in enumerate(sorted(folder.glob("[37]*.wav"))):
        (other / f"{i}.wav").write_bytes(path.read_bytes())
    assert main(f"--dataset={other}", "--model=text_to_mel") == 2
    assert "give the folder a metadata.csv" in capsys.readouterr().err
    assert main(f"--dataset={other / 'away'}") == 2
    assert "no such folder of recordings" in capsys.readouterr().err


def test_tasks_and_models_fit_each_other():
    assert [tasks.of("/x", name).models for name in models.SPEECH] == [
        (name,) for name in models.SPEECH
    ]
    assert not any(tasks.takes(tasks.IMAGES, name) for name in models.SPEECH)


def test_bits_and_draws_are_of_the_same_halves():
    samples = np.array([[-32768, -1, 0, 258, 32767]], "int32")
    logits = np.zeros((1, 5, 2, 256), "float32")
    np.testing.assert_allclose(bits_of(samples, logits), np.full((1, 5), 16), rtol=1e-6)
    for i, value in enumerate(samples[0] + 32768):
        logits[0, i, 0, value // 256] = logits[0, i, 1, value % 256] = 100.0
    np.testing.assert_allclose(bits_of(samples, logits), 0.0, atol=1e-6)
    np.testing.assert_array_equal(drawn_along(samples, logits), samples)
