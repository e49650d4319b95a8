"""The folder of a training run: whose it is, and whether it is finished."""

import json
from pathlib import Path

from keras_es.runs import files

OUTPUTS = ("checkpoints", "logs", "saved_model", "report.png", "summary.json")


class RunError(Exception):
    """Something the user has to change; the message is one line."""

    exit_code = 2


class Workdir:
    """The folder of a run, locked while the `with` block lasts.

    Args:
        path: The folder; it is made if need be.
        config: Dict of everything that the result follows from.
        chief: Whether this process writes. Other workers of the same run only read
            what the chief has written.

    Raises:
        RunError: On entry, if the folder belongs to another run or is in use.
        keras_es.runs.files.OutputError: On entry, if it cannot be written.
    """

    def __init__(self, path, config, chief=True):
        self.path = Path(path)
        self.config = config
        self.chief = chief
        self._lock = None

    def __enter__(self):
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

    def __exit__(self, *_):
        if self._lock is not None:
            self._lock.close()

    def summary(self):
        """Return the summary of a finished run, else None.

        Raises:
            RunError: If it is there but cannot be read.
        """
        path = self.path / "summary.json"
        return self._read(path) if path.exists() else None

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
        before = self._read(path)
        different = [
            f"{_flag(name, value)} (it has {_text(before.get(name))})"
            for name, value in self.config.items()
            if before.get(name) != value
        ]
        if different:
            raise RunError(
                f"the workdir {self.path} holds a run of another configuration: "
                f"{', '.join(different)}; choose another --workdir"
            )

    @staticmethod
    def _read(path):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error
        if not isinstance(content, dict):
            raise RunError(f"cannot read {path}: expected a JSON object")
        return content


def _flag(name, value):
    return f"{'' if name == 'replicas' else '--'}{name}={_text(value)}"


def _text(value):
    return "" if value is None else str(value)
