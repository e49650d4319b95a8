"""Where sound and voices go: names of files, and what may stand there already."""

import os
from pathlib import Path

from keras_es import _files as files
from keras_es.runs.errors import RunError
from models.sparse_wavernn import serving


def names(path, count):
    """Return the names of so many files: x.wav, or x-1.wav, x-2.wav, ..."""
    path = Path(path)
    if count == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{i + 1}") for i in range(count)]


def check_files(paths, read):
    """Refuse files that could not be written; nothing is changed.

    Args:
        paths: Names of the files.
        read: Names of files that are read, and must not be replaced.

    Raises:
        RunError: If a file is among those that are read.
        OutputError: If one cannot be written.
    """
    known = {Path(path).resolve() for path in read}
    for path in paths:
        if path.resolve() in known:
            raise RunError(f"--output would replace --mel_from={path}")
        with files.writing(path):
            _check_file(path)


def _check_file(path):
    if path.exists():
        if not path.is_file():
            raise OSError("what is there is no file")
        place = path
    else:
        # The nearest folder, in which those that are missing are made.
        place = next(p for p in path.absolute().parents if p.exists())
        if not place.is_dir():
            raise OSError(f"{place} is no folder")
    if not os.access(place, os.W_OK):
        raise OSError(f"{place} must not be written")


def check_folder(path):
    """Return the folder of a voice; refuse one whose content would be lost.

    Args:
        path: Its name.

    Raises:
        RunError: If there is anything but a voice.
        OutputError: If it cannot be looked at.
    """
    with files.writing(path):
        found = Path(path).resolve()
        new = not found.exists() or (found.is_dir() and not any(found.iterdir()))
        if new or (found.is_dir() and serving.is_voice(found)):
            return found
    raise RunError(
        "expected a new or an empty folder, or one with nothing but a voice that "
        f"--export wrote, received --export={path}"
    )
