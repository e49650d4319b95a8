"""Which `Task` a data set and a model are of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_es.datasets import audio
from keras_es.runs.errors import DataError, RunError
from keras_es.runs.images import ImageClassification
from keras_es.runs.speech import TextToMel
from keras_es.runs.task import Task
from keras_es.runs.vocoder import Vocoder

IMAGES, VOCODER, TEXT = ImageClassification(), Vocoder(), TextToMel()

SPEECH = (*VOCODER.models, *TEXT.models)
"""Names of the models that recordings alone are for."""


def of(dataset: str, model: str | None) -> Task:
    """Return the task of a data set and a model.

    Args:
        dataset: What --dataset says.
        model: What --model says; None for what fits the data set. One that does not
            fit it is refused by `settings.check`.
    """
    if not audio.is_audio(dataset):
        return IMAGES
    return TEXT if model in TEXT.models else VOCODER


def takes(task: Task, model: str) -> bool:
    """Tell whether a task has a model.

    Args:
        task: The task.
        model: Name of a model.
    """
    return model in task.models if task.models else model not in SPEECH


def load(
    dataset: str,
    data_dir: str | None,
    model: str | None,
    architectures: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """Load a data set.

    Args:
        dataset: What --dataset says.
        data_dir: What --data_dir says, or None.
        model: What --model says, or None.
        architectures: All models by name.
        options: What --options says, by name.

    Raises:
        RunError: If there is none of that name, or it is not there.
    """
    kind = of(dataset, model)
    try:
        name = model or next(iter(kind.models), "")
        return kind.load(dataset, data_dir, architectures.get(name), options)
    except ValueError as error:
        hint = ""
        if kind is IMAGES and Path(dataset).is_dir():
            hint = "; the folder of that name has no wav, flac or mp3 file in it"
        raise RunError(f"{error}{hint}") from error
    except (OSError, ImportError) as error:
        raise DataError(str(error)) from error
