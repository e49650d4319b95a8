"""Files that are there in full or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

# What is still being written carries this prefix, in the folder of its final name:
# only inside one file system is a rename atomic.
PARTIAL = ".partial-"


class OutputError(OSError):
    """A file could not be written; the message says which and why, in one line."""

    exit_code = 1


def expanded(name: str, path: str | os.PathLike) -> Path:
    """Return a path with `~` replaced by the folder of the user.

    Args:
        name: Name of the argument, for the message.
        path: The path.

    Raises:
        ValueError: If it is no path.
        OutputError: If there is no such user.
    """
    if not isinstance(path, str | os.PathLike) or path == "":
        raise ValueError(f"`{name}` must be a path. Received: {name}={path!r}")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise OutputError(f"cannot use {path}: there is no such user") from error


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turn what libraries raise on a full or read-only disk into an `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, tf.errors.OpError, RuntimeError) as error:
        # h5py reports a full disk as RuntimeError; other RuntimeErrors are bugs.
        if isinstance(error, RuntimeError) and _has_room(path):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        reason = " ".join(reason.split())[:200]
        raise OutputError(f"cannot write {path}: {reason}") from error


def _has_room(path, needed=2**20):
    with contextlib.suppress(OSError):
        return shutil.disk_usage(Path(path).parent).free > needed
    return True


def replace_file(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Put a new file in place of `path` in one step.

    Args:
        path: The final name.
        write: Function of a temporary path that writes the file there.

    Raises:
        OutputError: If it could not be written; an older file is then still there.
    """
    path = Path(path)
    partial = path.with_name(PARTIAL + path.name)
    with writing(path):
        try:
            write(partial)
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Put a text file in place of `path` in one step."""
    replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def replace_folder(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Put a new folder in place of `path`, as `replace_file` does for files."""
    path = Path(path)
    partial = path.with_name(PARTIAL + path.name)
    with writing(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write(partial)
            for folder, _, names in os.walk(partial):
                for name in names:
                    _sync(Path(folder, name))
            if path.exists():
                # A folder cannot be replaced in one step: the new one is complete
                # before the old one goes.
                shutil.rmtree(path)
            os.rename(partial, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_partial(folder: str | os.PathLike) -> None:
    """Remove what a killed process had begun to write in `folder`."""
    for partial in Path(folder).glob(PARTIAL + "*"):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
