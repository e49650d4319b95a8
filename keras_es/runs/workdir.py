"""The folder of a training run: whose it is, and whether it is finished."""

import json
import os
from typing import Any

from keras_es import _files as files
from keras_es.runs import identity
from keras_es.runs.errors import RunError, different_flags

DATA = "data"
"""Key of config.json, beside the flags, for what tells the data set from others."""

OUTPUTS = ("checkpoints", "logs", "saved_model", "report.png", "summary.json")


class Workdir:
    """The folder of a run, locked while the `with` block lasts.

    Args:
        path: The folder; it is made if need be.
        config: Dict of everything that the result follows from.
        chief: Whether this process writes. Other workers of the same run only read
            what the chief has written.

    Raises:
        RunError: On entry, if the folder belongs to another run or is in use.
        keras_es._files.OutputError: On entry, if it cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike, config: dict[str, Any], chief: bool = True
    ):
        self.path = files.expanded("path", path)
        self.config = config
        self.chief = chief
        self._lock: Any = None  # the open file that holds the lock
        self._data: identity.Identity | None = None

    def __enter__(self) -> "Workdir":
        if not self.chief:
            return self
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a")  # noqa: SIM115
        try:
            self._take_lock()
            self._check_config()
            files.remove_partial(self.path)
            files.remove_partial(self.path / "checkpoints")
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lock is not None:
            self._lock.close()

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of a finished run, else None.

        Raises:
            ValueError: If it cannot be read.
        """
        path = self.path / "summary.json"
        return _read(path) if path.exists() else None

    def check_data(self, data: identity.Identity) -> None:
        """Refuse a data set that is not the one this run began with.

        Args:
            data: What `Task.identity` returned.

        Raises:
            RunError: If the data set has changed.
        """
        known = self._read_config().get(DATA) if self.chief else None
        different = identity.different(known if isinstance(known, dict) else {}, data)
        if different:
            raise RunError(
                f"the data set of the run in {self.path} has changed ({different}); "
                "choose another --workdir"
            )
        self._data = data

    def note_data(self) -> None:
        """Keep what `check_data` was given for the next time, before training begins.

        A run that an older version began has no such note and goes on with what there
        is now.

        Raises:
            keras_es._files.OutputError: If it cannot be written.
        """
        if not self.chief or self._data is None:
            return
        content = self._read_config()
        if DATA not in content:
            self._write_config(content | {DATA: self._data})

    def _take_lock(self):
        """Lock the folder; the system lets go of it however the process ends."""
        try:
            import fcntl
        except ImportError:  # Windows: two runs in one folder are on their own.
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"the workdir {self.path} is in use by another process; wait for it or "
                "choose another --workdir"
            ) from error

    def _check_config(self):
        path = self.path / "config.json"
        if not path.exists():
            strange = [name for name in OUTPUTS if (self.path / name).exists()]
            if strange:
                raise RunError(
                    f"the workdir {self.path} has {strange[0]} but no config.json, so "
                    "it is not known what run it is of; choose another --workdir"
                )
            self._write_config(self.config)
            return
        different = different_flags(self.config, self._read_config())
        if different:
            raise RunError(
                f"the workdir {self.path} holds a run of another configuration: "
                f"{different}; choose another --workdir"
            )

    def _read_config(self):
        path = self.path / "config.json"
        try:
            return _read(path)
        except ValueError as error:
            raise RunError(f"cannot read {path}: {error}") from error

    def _write_config(self, content):
        text = json.dumps(content, indent=1) + "\n"
        files.write_text(self.path / "config.json", text)


def _read(path):
    """Return the JSON object of a file; ValueError if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content
