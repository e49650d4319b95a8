"""Checkpoints of a run: a model file, and a note that says what is in it.

The note holds the digest of the model file and is written after it. Whatever moment a
process is killed at, a checkpoint either has a note that fits, or does not count.
"""

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from keras_es.runs import files


@dataclasses.dataclass
class Progress:
    """How far a run has come, apart from the state of the model.

    Args:
        epoch: Number of finished epochs.
        step: Number of steps taken.
        seconds: Time spent in training, over all sessions.
        timed_steps: Steps of which the time is known; the first of each session,
            which compiles, is not among them.
        timed_seconds: Time of those steps.
        history: The logs of each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def save(model, folder, progress, keep):
    """Save a model with its progress; return the path of the model file.

    Args:
        model: The Keras model.
        folder: Where checkpoints are kept.
        progress: A `Progress`.
        keep: Number of checkpoints that stay, this one included.

    Raises:
        keras_es.runs.files.OutputError: If the disk does not take it.
    """
    folder = Path(folder)
    path = folder / f"step-{progress.step:08d}.keras"
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # An older note must not vouch for the new file.
    with files.writing(path):
        path.with_suffix(".json").unlink(missing_ok=True)
    files.replace_file(path, lambda partial: model.save(str(partial)))
    note = dataclasses.asdict(progress) | {"sha256": _digest(path)}
    files.write_text(path.with_suffix(".json"), json.dumps(note, indent=1))
    for old in _by_age(folder)[:-keep]:
        if old.name < path.name:
            with contextlib.suppress(OSError):
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink()
    return path


def latest(folder):
    """Find the newest checkpoint that is whole.

    Args:
        folder: Where checkpoints are kept; need not exist.

    Returns:
        A tuple of the path of the model file, its `Progress`, and a list that says
        for each newer checkpoint what is wrong with it. Path and progress are None
        if no checkpoint is whole.
    """
    damaged = []
    for path in reversed(_by_age(folder)):
        try:
            return path, _read_note(path), damaged
        except (OSError, ValueError, TypeError, KeyError) as error:
            damaged.append(f"{path.name} ({_reason(error)})")
    return None, None, damaged


def _reason(error):
    if isinstance(error, FileNotFoundError):
        return "its note is missing"
    if isinstance(error, json.JSONDecodeError | KeyError | TypeError):
        return "its note is damaged"
    return str(error)


def _read_note(path):
    note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if note.pop("sha256") != _digest(path):
        raise ValueError("truncated or damaged")
    return Progress(**note)


def _by_age(folder):
    return sorted(Path(folder).glob("step-*.keras"))


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
