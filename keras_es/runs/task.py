"""What a kind of data needs of a run: `Task`, the base of `images` and `speech`.

The rest of the room (settings, loop, checkpoints, summary) asks a `Task` and knows
nothing of images or speech. Another kind is another subclass, and a word in
`tasks.of`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es.runs.identity import Identity

Line = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A line of the table at the end: a caption, and a function of the summary."""


class Task:
    """Base of tasks; a subclass defines every method.

    The data sets that `load` returns have a `name`, `train_size` and `test_size`,
    `steps_per_epoch(batch_size)` and `test_batches()` as `keras_es.datasets.
    ImageDataset` has them: training goes on at the step that it was stopped at, so
    batches have to be a function of (seed, step).
    """

    without_data_dir: tuple[str, ...] = ()
    """Names of data sets that come with a library, and are in no folder."""

    def uses_data_dir(self, name: str) -> bool:
        """Tell whether a data set is looked for in --data_dir.

        Args:
            name: What --dataset says.
        """
        return name not in self.without_data_dir

    models: tuple[str, ...] = ()
    """Names of the models that only this kind of data has; empty for all others."""

    options: tuple[str, ...] = ()
    """Names of the options (see `keras_es.runs.options`) that it takes."""

    def load(
        self,
        name: str,
        data_dir: str | None,
        architecture: Any,
        options: Mapping[str, Any],
    ) -> Any:
        """Return the data set of a name.

        Args:
            name: What --dataset says.
            data_dir: What --data_dir says, or None.
            architecture: The entry of `models` that is to be trained, or None.
            options: Those that are given, by name.

        Raises:
            ValueError: If there is none, or it is of no use.
            OSError: If it is not to be had.
            ImportError: If a library is missing.
        """
        raise NotImplementedError

    def defaults(self, data: Any) -> dict[str, Any]:
        """Return model, batch_size, epochs, learning_rate, and those of `options`."""
        raise NotImplementedError

    def build(
        self, build: Callable[..., keras.Model], data: Any, config: Mapping[str, Any]
    ) -> keras.Model:
        """Return the plain model of a builder for this data and the run's config."""
        raise NotImplementedError

    def compile_arguments(self, architecture: Any) -> dict[str, Any]:
        """Return new loss and metrics for `compile`.

        Args:
            architecture: The entry of `models` that the model was built of.
        """
        raise NotImplementedError

    def train_batches(
        self, data: Any, config: Mapping[str, Any], first_step: int
    ) -> tf.data.Dataset:
        """Return the endless stream of training batches from a step on."""
        raise NotImplementedError

    def describe(self, data: Any) -> str:
        """Return what is trained on, for the first line of a run."""
        raise NotImplementedError

    def identity(self, data: Any) -> Identity:
        """Return what tells the data from others, where training would notice.

        A run that goes on with other data is refused by it. Integers and strings have
        to be the same then, floats nearly.
        """
        raise NotImplementedError

    def evaluate(self, folder: str | os.PathLike, data: Any) -> dict[str, float]:
        """Return what an exported SavedModel achieves on the test data."""
        raise NotImplementedError

    def summary(self, data: Any) -> dict[str, Any]:
        """Return what a user of the exported model has to know of its input."""
        raise NotImplementedError

    def result(self, summary: Mapping[str, Any]) -> str:
        """Return the result in some words, for the title of the report."""
        raise NotImplementedError

    def lines(self) -> tuple[Line, ...]:
        """Return the lines of the table that show what `evaluate` returned."""
        raise NotImplementedError

    def draw_report(
        self,
        path: Path,
        history: list[dict[str, Any]],
        masks: dict[str, np.ndarray],
        title: str,
        data: Any,
        model: keras.Model,
    ) -> None:
        """Draw the course of the run and its masks to a PNG file.

        Args:
            path: The file.
            history: Logs of each epoch.
            masks: Dict from names of weights to masks.
            title: What stands above.
            data: The data set.
            model: The trained model without masks.
        """
        raise NotImplementedError

    def callbacks(
        self, data: Any, config: Mapping[str, Any], logs: Path
    ) -> list[keras.callbacks.Callback]:
        """Return what else the chief calls in training; none, if not overridden.

        Args:
            data: The data set.
            config: The run's config.
            logs: Folder of TensorBoard's logs.
        """
        return []
