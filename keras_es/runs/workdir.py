"""The folder of a training run: whose it is, and whether it is finished."""

import json
import os
from typing import Any

from keras_es import _files as files
from keras_es.runs.errors import RunError, different_flags

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
            files.write_text(path, json.dumps(self.config, indent=1) + "\n")
            return
        try:
            before = _read(path)
        except ValueError as error:
            raise RunError(f"cannot read {path}: {error}") from error
        different = different_flags(self.config, before)
        if different:
            raise RunError(
                f"the workdir {self.path} holds a run of another configuration: "
                f"{different}; choose another --workdir"
            )


def _read(path):
    """Return the JSON object of a file; ValueError if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content
