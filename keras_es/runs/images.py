"""Images and one label each, as a `Task` of train.py."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import plots
from keras_es.datasets import images
from keras_es.runs.identity import Identity, digest
from keras_es.runs.task import Line, Task


class ImageClassification(Task):
    """Images and one label each: see `keras_es.datasets.load` for the data sets."""

    without_data_dir = ("digits",)
    options = ("augment",)

    def load(
        self,
        name: str,
        data_dir: str | None,
        architecture: Any,
        options: Mapping[str, Any],
    ) -> images.ImageDataset:
        """Return the data set of a name."""
        return images.load(name, data_dir)

    def defaults(self, data: images.ImageDataset) -> dict[str, Any]:
        """Return what follows from size and channels of the images."""
        height, width, channels = data.input_shape
        if height * width <= 256:
            model, batch_size, epochs, rate = "mlp", 64, 60, 0.003
        elif channels == 1:
            model, batch_size, epochs, rate = "lenet", 128, 10, 0.003
        else:
            model, batch_size, epochs, rate = "cifar_convnet", 128, 30, 0.001
        return {
            "model": model,
            "batch_size": batch_size,
            "epochs": epochs,
            "learning_rate": rate,
            "augment": data.name in ("cifar10", "cifar100"),
        }

    def build(
        self, build: Callable[..., keras.Model], data: Any, config: Mapping[str, Any]
    ) -> keras.Model:
        """Return a model of images to logits."""
        return build(data.input_shape, data.num_classes)

    def compile_arguments(self, architecture: Any) -> dict[str, Any]:
        """Return cross-entropy and accuracy."""
        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        }

    def train_batches(
        self, data: images.ImageDataset, config: Mapping[str, Any], first_step: int
    ) -> tf.data.Dataset:
        """Return batches of images and labels."""
        return data.train_batches(
            config["batch_size"],
            seed=config["seed"],
            first_step=first_step,
            augment=config["augment"],
        )

    def describe(self, data: images.ImageDataset) -> str:
        """Return number and name."""
        return f"{data.train_size:,} training images of {data.name}"

    def identity(self, data: images.ImageDataset) -> Identity:
        """Return sizes, and digests of labels and of some images."""
        return {
            "training images": data.train_size,
            "test images": data.test_size,
            "shape": "x".join(map(str, data.input_shape)),
            "classes": data.num_classes,
            "digest of labels": digest([data.y_train.tolist(), data.y_test.tolist()]),
            "digest of images": digest([digest(data.x_train), digest(data.x_test)]),
        }

    def evaluate(
        self, folder: str | os.PathLike, data: images.ImageDataset
    ) -> dict[str, float]:
        """Return accuracy and mean cross-entropy of a SavedModel of logits."""
        served = tf.saved_model.load(str(folder))
        right, loss = 0, 0.0
        for pictures, labels in data.test_batches():
            logits = served.serve(pictures).numpy().astype("float64")
            labels = labels.numpy()
            right += int(np.sum(np.argmax(logits, axis=-1) == labels))
            peak = logits.max(axis=-1, keepdims=True)
            log_sum = peak[:, 0] + np.log(np.sum(np.exp(logits - peak), axis=-1))
            loss += float(np.sum(log_sum - logits[np.arange(len(labels)), labels]))
        return {
            "test_accuracy": right / data.test_size,
            "test_loss": loss / data.test_size,
        }

    def summary(self, data: images.ImageDataset) -> dict[str, Any]:
        """Return shape, type and range of an image."""
        shape = list(data.input_shape)
        return {"input": {"shape": shape, "dtype": "float32", "range": [0, 1]}}

    def result(self, summary: Mapping[str, Any]) -> str:
        """Return the accuracy."""
        return f"{summary['test_accuracy']:.2%} test accuracy"

    def lines(self) -> tuple[Line, ...]:
        """Return the lines of accuracy and loss."""
        return (
            ("test accuracy", lambda s: f"{s['test_accuracy']:.4f}"),
            ("test loss", lambda s: "nan" if s["test_loss"] is None else
             f"{s['test_loss']:.4f}"),
        )  # fmt: skip

    def draw_report(
        self,
        path: Path,
        history: list[dict[str, Any]],
        masks: dict[str, np.ndarray],
        title: str,
        data: images.ImageDataset,
        model: keras.Model,
    ) -> None:
        """Draw curves, masks, and the inputs that the first layer looks at."""
        figure = plots.run_report(history, masks, title, data.input_shape)
        figure.savefig(path, dpi=100, format="png")
