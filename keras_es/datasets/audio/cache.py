"""Features of a folder, kept on the disk: they are made once and read again."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_es import _files as files

VERSION = 2
"""Counts changes of what is made of the same files."""

VARIABLE = "KERAS_ES_CACHE_DIR"


def folder() -> Path | None:
    """Return where features are kept, or None if they are not.

    That is `$KERAS_ES_CACHE_DIR`, nowhere if it is empty, else `keras_es` in the
    user's folder of caches.

    Raises:
        OutputError: If the variable names the folder of a user whom there is not.
    """
    given = os.environ.get(VARIABLE)
    if given == "":
        return None
    if given is not None:
        return files.expanded(VARIABLE, given)
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(files.OutputError):  # There may be no such user.
        return files.expanded("XDG_CACHE_HOME", caches) / "keras_es" / "audio"
    return None


def key(parts: object, paths: list[Path]) -> str:
    """Return a digest of settings and of the files' names, sizes and times."""
    stats = [(str(p), s.st_size, s.st_mtime_ns) for p in paths for s in [p.stat()]]
    return hashlib.sha256(json.dumps([VERSION, parts, stats]).encode()).hexdigest()


def load(name: str, parts: Sequence[str]) -> dict[str, np.ndarray] | None:
    """Return the arrays of a name, or None; what is damaged does not count.

    Args:
        name: As `key` gives it.
        parts: What the arrays are called.
    """
    where = folder()
    if where is None:
        return None
    try:
        with open(where / f"{name}.npz", "rb") as file:
            # From memory: of a damaged file NumPy forgets to close what it opened.
            stored = np.load(io.BytesIO(file.read()), allow_pickle=False)
            return {part: stored[part] for part in parts}
    except Exception:  # Whatever damage makes NumPy and zipfile say.
        return None


def store(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep arrays under a name, if the disk takes them: it is no more than a saving."""
    where = folder()
    if where is None:
        return

    def write(partial):
        with open(partial, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    # Workers on one machine may do so at the same time: each writes a file of its own.
    own = where / f"{os.getpid()}-{name}.npz"
    with contextlib.suppress(OSError):
        where.mkdir(parents=True, exist_ok=True)
        files.replace_file(own, write)
        os.replace(own, where / f"{name}.npz")
