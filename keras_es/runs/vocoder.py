"""Samples from frames, as a `Task` of train.py."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import plots
from keras_es.datasets import audio
from keras_es.runs import tensorboard
from keras_es.runs.speech import Speech
from keras_es.runs.task import Line

FRAMES = 10
"""Of the pieces that are learned from, if no option says: 125 ms."""

TEST_BATCH = 16

SHOWN = 1.5
"""Seconds of a held-out recording in the report and in TensorBoard, at most."""


class VocoderData:
    """Pieces of recordings with their frames, as training and test batches.

    Args:
        recordings: The `AudioDataset`.
        frames: Frames of a piece.
        architecture: Entry of `models`: `context` is how many further frames on either
            side the model looks at, `speak` a function (model, frames) -> samples.
    """

    def __init__(self, recordings: audio.AudioDataset, frames: int, architecture: Any):
        self.recordings, self.frames = recordings, frames
        self.context, self.speak = architecture.context, architecture.speak
        self.name, self.sample_rate = recordings.name, recordings.sample_rate
        self.train_size = recordings.crop_count(frames)
        self.test_size = len(recordings.test_places(frames))
        longest = max(len(u.mel) for u in recordings.train)
        if frames > longest:
            raise ValueError(
                "a piece must fit into a recording, of which the longest has "
                f"{longest} frames. Received: frames={frames}"
            )

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the batches that are as long as the training data together.

        Args:
            batch_size: Pieces in a batch.
        """
        return math.ceil(self.train_size / batch_size)

    def train_batches(self, batch_size, seed, first_step):
        """Return batches whose targets are the samples of the inputs."""
        batches = self.recordings.crops(
            batch_size, self.frames,
            seed=seed, first_step=first_step, context=self.context,
        )  # fmt: skip
        return batches.map(_with_targets)

    def test_batches(self):
        """Return test pieces in order."""
        batches = self.recordings.test_crops(
            TEST_BATCH, self.frames, context=self.context
        )
        return batches.map(_with_targets)

    def shown(self) -> tuple[audio.Utterance, dict[str, np.ndarray]]:
        """Return a held-out recording, cut to `SHOWN`, and its batch of one."""
        said = self.recordings.test[0]
        frames = min(len(said.mel), round(SHOWN / audio.HOP_SECONDS))
        samples = said.samples[: frames * self.recordings.hop]
        ends = ((self.context, self.context), (0, 0))
        mel = np.pad(said.mel[:frames], ends, mode="edge")
        return said, {"samples": samples[None].astype("int32"), "mel": mel[None]}


def _with_targets(x):
    return x, x["samples"]


class Vocoder(Speech):
    """Samples from frames: `models/sparse_wavernn`."""

    models = ("sparse_wavernn",)
    options = (*Speech.options, "frames")

    def load(
        self,
        name: str,
        data_dir: str | None,
        architecture: Any,
        options: Mapping[str, Any],
    ) -> VocoderData:
        """Return recordings, cut into pieces."""
        recordings = self.recordings(name, data_dir, options)
        return VocoderData(recordings, options.get("frames", FRAMES), architecture)

    def defaults(self, data: VocoderData) -> dict[str, Any]:
        """Return what the paper has, with pieces that fit the data."""
        return {
            "model": "sparse_wavernn",
            "batch_size": min(32, data.train_size),
            "epochs": 100,
            "learning_rate": 0.002,
            "units": 896,
            "frames": data.frames,
            "sample_rate": data.sample_rate,
            "hold_out": audio.HOLD_OUT[0],
        }

    def build(
        self, build: Callable[..., keras.Model], data: Any, config: Mapping[str, Any]
    ) -> keras.Model:
        """Return a model for the rate of the data."""
        return build(units=config["units"], hop=data.recordings.hop)

    def train_batches(
        self, data: VocoderData, config: Mapping[str, Any], first_step: int
    ) -> tf.data.Dataset:
        """Return batches of pieces."""
        return data.train_batches(config["batch_size"], config["seed"], first_step)

    def evaluate(
        self, folder: str | os.PathLike, data: VocoderData
    ) -> dict[str, float]:
        """Return the bits per sample that a SavedModel of logits needs."""
        served = tf.saved_model.load(str(folder))
        bits, count = 0.0, 0
        for x, samples in data.test_batches():
            found = bits_of(samples, served.serve(x))
            bits += float(tf.reduce_sum(tf.cast(found, tf.float64)))
            count += int(tf.size(found))
        return {"test_bits": bits / count}

    def result(self, summary: Mapping[str, Any]) -> str:
        """Return the bits per sample."""
        return f"{summary['test_bits']:.3f} bits per sample"

    def lines(self) -> tuple[Line, ...]:
        """Return the line of bits."""
        return (("bits per sample", lambda s: f"{s['test_bits']:.4f} of 16"),)

    def callbacks(
        self, data: VocoderData, config: Mapping[str, Any], logs: Path
    ) -> list[keras.callbacks.Callback]:
        """Return what writes sound for TensorBoard."""
        return [Listen(data, logs)]

    def draw_report(
        self,
        path: Path,
        history: list[dict[str, Any]],
        masks: dict[str, np.ndarray],
        title: str,
        data: VocoderData,
        model: keras.Model,
    ) -> None:
        """Draw curves, the masks of each gate, and spectrograms."""
        said, x = data.shown()
        heard = drawn_along(x["samples"], forward(model)(x))[0]
        mel = said.mel[: len(x["mel"][0]) - 2 * data.context]
        rate = data.sample_rate
        pictures = {
            f"recorded: {said.id[-30:]}": mel,
            "drawn, each sample after recorded ones": mel_of(heard, rate),
            "generated from frames": mel_of(data.speak(model, mel), rate),
        }
        figure = plots.run_report(history, masks, title, pictures=pictures)
        figure.savefig(path, dpi=100, format="png")


def bits_of(samples, logits):
    """Return the bits of each sample, [batch, T].

    Args:
        samples: int32 [batch, T] in [-32768, 32767].
        logits: [batch, T, 2, 256], of the upper and of the lower 8 bits.
    """
    shifted = samples + 32768
    values = tf.stack([shifted // 256, shifted % 256], axis=-1)
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=values, logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_sum(nats, axis=-1) / math.log(2.0)


def drawn_along(samples, logits):
    """Return samples drawn from their predictions, int16 [batch, T].

    Each follows recorded ones, not drawn ones. The lower bits are predicted for the
    upper bits that were recorded, so they stay with these.

    Args:
        samples: int32 [batch, T], what was recorded.
        logits: [batch, T, 2, 256].
    """
    shape = tf.shape(logits)
    flat = tf.reshape(tf.cast(logits, tf.float32), [-1, 256])
    key = tf.constant([0, 0], tf.int64)
    noise = tf.random.stateless_uniform(
        tf.shape(flat), key, 1e-20, 1.0, tf.float32, alg="philox"
    )
    values = tf.argmax(flat - tf.math.log(-tf.math.log(noise)), -1, tf.int32)
    values = tf.reshape(values, shape[:-1])
    return (256 * values[..., 0] + values[..., 1] - 32768).numpy().astype("int16")


def mel_of(samples, sample_rate):
    """Return the frames of 16-bit samples as an array."""
    return audio.mel_spectrogram(audio.from_int16(samples), sample_rate).numpy()


def forward(model):
    """Return a compiled function of the inputs."""
    return tf.function(lambda x: model(x, training=False))


class Listen(keras.callbacks.Callback):
    """Writes sound for TensorBoard: recorded once, drawn along it after each epoch.

    Args:
        data: `VocoderData`.
        logs: Folder of the logs.
    """

    def __init__(self, data: VocoderData, logs: Path):
        super().__init__()
        self.data, self.logs = data, Path(logs)

    def on_train_begin(self, logs=None):
        self._forward = forward(self.model)
        self._recorded = False

    def on_epoch_end(self, epoch, logs=None):
        rate = self.data.sample_rate
        _, x = self.data.shown()
        heard = drawn_along(x["samples"], self._forward(x))[0]
        with tensorboard.writer(self.logs / "validation"):
            if not self._recorded:
                tensorboard.write_audio("recorded", x["samples"][0], rate, epoch)
                self._recorded = True
            tensorboard.write_audio("drawn_along_it", heard, rate, epoch)
