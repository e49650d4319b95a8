"""Checkpoints of a run: a model file, and a note that says what is in it.

The note holds the digest of the model file and is written after it. Whatever moment a
process is killed at, a checkpoint either has a note that fits, or does not count.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_es import _files as files
from keras_es._arguments import integer
from keras_es.distribution import workers
from keras_es.runs.errors import RunError, different_flags
from keras_es.runs.progress import Progress


class AtomicCheckpoint(keras.callbacks.Callback):
    """Saves the whole model after each epoch, so that no kill can leave half a file.

    Each checkpoint is written under another name in the same folder, flushed to the
    disk and renamed; a digest beside it tells a damaged one. `keras.callbacks.
    ModelCheckpoint` writes in place instead, and `BackupAndRestore` keeps one. With
    several workers only the chief writes; all of them have to read the same folder.

    Args:
        folder: Where to put `step-*.keras` and `step-*.json`.
        keep: Number of checkpoints that stay, an integer of at least 1.
        progress: What `AtomicCheckpoint.restore` returned, if training goes on.
        run: None, or a dict for JSON that tells this run from others, such as its
            hyperparameters. It is kept in the notes, and `restore` refuses what
            belongs to another run.

    Attributes:
        saved_step: Step of the newest checkpoint, from which a run would go on.

    Raises:
        ValueError: If `folder` is no path, `keep` no such integer, or JSON cannot
            hold `run`.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> checkpoint = keras_es.callbacks.AtomicCheckpoint(folder)
    >>> _ = model.fit(x, y, epochs=2, verbose=0, callbacks=[checkpoint])
    >>> restored, progress, damaged = checkpoint.restore(folder)
    >>> progress.epoch, damaged
    (2, [])
    >>> bool(np.all(restored.predict(x, verbose=0) == model.predict(x, verbose=0)))
    True
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        keep: int = 2,
        progress: Progress | None = None,
        run: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.folder = files.expanded("folder", folder)
        self.keep = integer(1)("keep", keep)
        if not isinstance(progress, Progress | None):
            raise ValueError(
                "`progress` must be None or what `AtomicCheckpoint.restore` returned. "
                f"Received: progress={progress!r}"
            )
        self.progress = progress or Progress()
        self.saved_step = self.progress.step
        self.run = _for_json(run)
        self.begun: float | None = None  # when `fit` began, or was last saved

    @staticmethod
    def restore(
        folder: str | os.PathLike, run: dict[str, Any] | None = None
    ) -> tuple[keras.Model | None, Progress | None, list[str]]:
        """Load the newest whole checkpoint of a folder.

        Args:
            folder: Where the checkpoints are.
            run: None, or the `run` that they must be of.

        Returns:
            A tuple (model, progress, damaged): the compiled model and its progress, or
            None twice if there is no whole checkpoint; and a list of strings that name
            the newer ones that are damaged.

        Raises:
            keras_es.runs.errors.RunError: If a checkpoint is of another run, or whole
                and no model that can be loaded here.
        """
        path, progress, damaged = latest(folder, run)
        model = None if path is None else load(path)
        return model, progress, damaged

    def save(self) -> Path | None:
        """Save the model as it is now, at the end of a step, if this is the chief.

        Raises:
            RuntimeError: If there is no model yet.
        """
        if self.model is None:
            raise RuntimeError(
                "`save` needs the model of a `fit`: put the checkpoint into its "
                "`callbacks` first. Received: a checkpoint that no `fit` has had"
            )
        self._stop_clock()
        path = None
        if workers.is_chief(self.model.distribute_strategy):
            path = save(self.model, self.folder, self.progress, self.keep, self.run)
        self.saved_step = self.progress.step  # not if a second signal came before
        return path

    def on_train_begin(self, logs=None):
        self.begun = time.monotonic()
        self._first_step = True

    def on_epoch_begin(self, epoch, logs=None):
        self._last_time = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        # Not by the number at the end, which may be beyond the epoch.
        steps, total = self.model.steps_per_execution, self.params.get("steps")
        self._steps = steps if total is None else min(steps, total - batch)

    def on_train_batch_end(self, batch, logs=None):
        steps = self._steps
        self.progress.step += steps
        now = time.monotonic()
        if not self._first_step:
            self.progress.timed_steps += steps
            self.progress.timed_seconds += now - self._last_time
        self._first_step, self._last_time = False, now

    def on_epoch_end(self, epoch, logs=None):
        self.progress.epoch = epoch + 1
        self.progress.history.append({"epoch": epoch + 1} | plain_logs(logs or {}))
        self.save()

    def on_train_end(self, logs=None):
        self.begun = None

    def _stop_clock(self):
        if self.begun is not None:
            now = time.monotonic()
            self.progress.seconds += now - self.begun
            self.begun = now


def plain_logs(logs):
    """Return logs for JSON; a metric with a number for each class is a list."""
    return {name: np.asarray(v, "float64").tolist() for name, v in logs.items()}


def _for_json(run):
    """Return a run's dict as JSON gives it back, or None."""
    try:
        if isinstance(run, dict | None):
            return json.loads(json.dumps(run))
    except (TypeError, ValueError, RecursionError):
        pass
    raise ValueError(
        "`run` must be None or a dict of what JSON can hold: numbers, strings, lists "
        f"and dicts of them. Received: run={run!r}"
    )


def save(
    model: Any,
    folder: str | os.PathLike,
    progress: Progress,
    keep: int,
    run: dict[str, Any] | None = None,
) -> Path:
    """Save a model with its progress; return the path of the model file.

    Args:
        model: The Keras model.
        folder: Where checkpoints are kept.
        progress: A `Progress`.
        keep: Number of checkpoints that stay, this one included.
        run: None, or a dict that tells the run from others.

    Raises:
        keras_es._files.OutputError: If the disk does not take it.
    """
    folder = Path(folder)
    path = folder / f"step-{progress.step:08d}.keras"
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # An older note must not vouch for the new file.
    with files.writing(path):
        path.with_suffix(".json").unlink(missing_ok=True)
    files.replace_file(path, lambda partial: model.save(str(partial)))
    note = dataclasses.asdict(progress) | {"sha256": _digest(path), "run": run}
    files.write_text(path.with_suffix(".json"), json.dumps(note, indent=1))
    for old in _by_age(folder)[:-keep]:
        if old.name < path.name:
            with contextlib.suppress(OSError):
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink()
    return path


def load(path: Path) -> keras.Model:
    """Load the model of a whole checkpoint.

    Not the one before if that fails: what was saved as it is in the file would, in all
    of them, miss the same class or version.

    Raises:
        RunError: If that fails.
    """
    try:
        return keras.models.load_model(path)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise RunError(
            f"cannot load the checkpoint {path}: {' '.join(str(error).split())[:200]}; "
            "remove it to go on from the one before"
        ) from error


def latest(
    folder: str | os.PathLike, run: dict[str, Any] | None = None
) -> tuple[Path | None, Progress | None, list[str]]:
    """Find the newest checkpoint that is whole.

    Args:
        folder: Where checkpoints are kept; need not exist.
        run: None, or a dict that tells the run from others.

    Returns:
        A tuple of the path of the model file, its `Progress`, and a list that says
        for each newer checkpoint what is wrong with it. Path and progress are None
        if no checkpoint is whole.

    Raises:
        RunError: If a checkpoint is whole and of another run.
    """
    damaged = []
    for path in reversed(_by_age(files.expanded("folder", folder))):
        try:
            progress, owner = _read_note(path)
        except _UNREADABLE as error:
            damaged.append(f"{path.name} ({_reason(error)})")
            continue
        if run is not None:
            _refuse_other(path, run, owner)
        return path, progress, damaged
    return None, None, damaged


_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)


class _DamagedError(ValueError):
    """What is wrong with a checkpoint whose note can be read."""


def _refuse_other(path, run, owner):
    run = _for_json(run)
    if owner == run:
        return
    whose = "its note does not say of which"
    if isinstance(owner, dict):
        whose = different_flags(run, owner) or "it has other settings"
    raise RunError(
        f"the checkpoint {path} is not of this run: {whose}; remove it, or choose "
        "another folder (with train.py, another --workdir)"
    )


def _reason(error):
    if isinstance(error, _DamagedError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "its note is missing"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "its note is damaged"


def _read_note(path):
    """Return the `Progress` of a checkpoint, and the run that it is of."""
    note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if not isinstance(note, dict):
        raise TypeError("not an object")
    if note.pop("sha256") != _digest(path):
        raise _DamagedError("truncated or damaged")
    owner = note.pop("run", None)
    progress = Progress(**note)
    progress.check()
    if path.stem != f"step-{progress.step:08d}":
        raise _DamagedError(f"its note is of step {progress.step}")
    return progress, owner


def _by_age(folder):
    return sorted(Path(folder).glob("step-*.keras"))


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
