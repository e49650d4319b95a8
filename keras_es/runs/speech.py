"""Frames from text, as a `Task` of train.py, and what it shares with the vocoder."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import plots
from keras_es.datasets import audio
from keras_es.datasets.audio import sentences
from keras_es.runs.identity import Identity, digest
from keras_es.runs.task import Line, Task


class Speech(Task):
    """What both tasks share: recordings, and what an exported model says of them."""

    options: tuple[str, ...] = ("sample_rate", "hold_out", "units")

    def uses_data_dir(self, name: str) -> bool:
        """Tell whether it is of tensorflow-datasets, not a folder."""
        return name in audio.NAMES

    def recordings(
        self, name: str, data_dir: str | None, options: Mapping[str, Any]
    ) -> audio.AudioDataset:
        """Return the recordings; what is skipped is said, a line each."""
        return audio.load(
            name,
            data_dir,
            sample_rate=options.get("sample_rate"),
            hold_out=options.get("hold_out", audio.HOLD_OUT[0]),
            progress=_progress_bar(),
        )

    def compile_arguments(self, architecture: Any) -> dict[str, Any]:
        """Return loss and metrics of the model's own module."""
        return architecture.compile_arguments()

    def summary(self, data: Any) -> dict[str, Any]:
        """Return rate and features."""
        return {
            "input": {
                "sample_rate": data.sample_rate,
                "hop": audio.hop_length(data.sample_rate),
                "mels": audio.MELS,
            }
        }

    def describe(self, data: Any) -> str:
        """Return minutes and name."""
        minutes = data.recordings.seconds("train") / 60
        return f"{minutes:.1f} minutes of {data.name} at {data.sample_rate:,} Hz"

    def identity(self, data: Any) -> Identity:
        """Return how many recordings there are, and which, how long and how loud.

        No digest of samples: another processor may resample to others by a bit.
        """
        train, test = data.recordings.train, data.recordings.test
        rows = [[[u.id, len(u.samples)] for u in part] for part in (train, test)]
        return {
            "training recordings": len(train),
            "test recordings": len(test),
            "digest of names and lengths": digest(rows),
            "mean level": round(float(np.mean([_level(u.samples) for u in train])), 3),
        }


def _level(samples):
    """Return the root mean square."""
    return np.linalg.norm(samples.astype("float32")) / np.sqrt(len(samples))


def _progress_bar() -> Callable[[int, int], object] | None:
    """Return what shows how many recordings are read, where somebody looks."""
    if not sys.stdout.isatty():
        return None
    bar: keras.utils.Progbar | None = None

    def show(done, count):
        nonlocal bar
        if bar is None:
            bar = keras.utils.Progbar(count, unit_name="recording")
        bar.update(done)

    return show


class TextData:
    """Whole recordings with texts, as training and test batches.

    Args:
        recordings: The `AudioDataset`.

    Raises:
        ValueError: If a text is missing.
    """

    def __init__(self, recordings: audio.AudioDataset):
        self.recordings, self.name = recordings, recordings.name
        self.sample_rate = recordings.sample_rate
        self.characters = sentences.characters_of(recordings)
        self.sentences = sentences.Sentences(recordings, self.characters)
        self.train_size = len(self.sentences.train)
        self.test_size = len(self.sentences.test)
        self.steps_per_epoch = self.sentences.steps_per_epoch

    def train_batches(self, batch_size, seed, first_step):
        """Return batches; the targets are in the inputs, and y only counts them."""
        batches = self.sentences.batches(batch_size, seed=seed, first_step=first_step)
        return batches.map(_with_targets)

    def test_batches(self):
        """Return the test utterances in order."""
        return self.sentences.test_batches(16).map(_with_targets)


def _with_targets(x):
    return x, x["frames"]


class TextToMel(Speech):
    """Frames from text: `models/text_to_mel.py`."""

    models = ("text_to_mel",)
    # What the model returns of each utterance.
    columns = ("loss", "mel_error", "path_error", "duration_error")

    def load(
        self,
        name: str,
        data_dir: str | None,
        architecture: Any,
        options: Mapping[str, Any],
    ) -> TextData:
        """Return recordings whose texts are known."""
        return TextData(self.recordings(name, data_dir, options))

    def defaults(self, data: TextData) -> dict[str, Any]:
        """Return what suits some minutes to some hours."""
        return {
            "model": "text_to_mel",
            "batch_size": min(16, data.train_size),
            "epochs": 100,
            "learning_rate": 0.002,
            "units": 128,
            "sample_rate": data.sample_rate,
            "hold_out": audio.HOLD_OUT[0],
        }

    def identity(self, data: TextData) -> Identity:
        """Return what there is of texts and speakers as well."""
        recordings = data.recordings
        rows = [
            [u.text.lower(), u.speaker] for u in (*recordings.train, *recordings.test)
        ]
        return {
            **super().identity(data),
            "characters": len(data.characters),
            "speakers": len(recordings.speakers),
            "digest of texts and speakers": digest(rows),
        }

    def build(
        self, build: Callable[..., keras.Model], data: Any, config: Mapping[str, Any]
    ) -> keras.Model:
        """Return a model for the characters and speakers of the data."""
        speakers = data.recordings.speakers
        return build(data.characters, speakers, data.sample_rate, units=config["units"])

    def train_batches(
        self, data: TextData, config: Mapping[str, Any], first_step: int
    ) -> tf.data.Dataset:
        """Return batches of utterances."""
        return data.train_batches(config["batch_size"], config["seed"], first_step)

    def evaluate(self, folder: str | os.PathLike, data: TextData) -> dict[str, float]:
        """Return the means of what a SavedModel says of the test utterances."""
        served = tf.saved_model.load(str(folder))
        rows = [served.serve(x).numpy() for x, _ in data.test_batches()]
        means = np.concatenate(rows).mean(axis=0, dtype="float64")
        return {
            f"test_{name}": float(value)
            for name, value in zip(self.columns, means, strict=True)
        }

    def result(self, summary: Mapping[str, Any]) -> str:
        """Return how far frames are off."""
        return f"log-mel frames off by {summary['test_mel_error']:.3f}"

    def lines(self) -> tuple[Line, ...]:
        """Return the lines of frames and durations."""
        return (
            ("frames", lambda s: f"off by {s['test_mel_error']:.4f} nepers on average"),
            (
                "durations",
                lambda s: f"off by a factor of {_factor(s['test_duration_error']):.2f}",
            ),
        )

    def draw_report(
        self,
        path: Path,
        history: list[dict[str, Any]],
        masks: dict[str, np.ndarray],
        title: str,
        data: TextData,
        model: keras.Model,
    ) -> None:
        """Draw curves, masks, and a held-out sentence as it is and as it is spoken."""
        said = data.sentences.test[0][0]
        [spoken] = model.get_layer("text_to_mel").speak([said.text], said.speaker)
        pictures = {f"recorded: {said.text[:30]}": said.mel, "from its text": spoken}
        figure = plots.run_report(history, masks, title, pictures=pictures)
        figure.savefig(path, dpi=100, format="png")


def _factor(squared):
    return float(np.exp(np.sqrt(squared)))
