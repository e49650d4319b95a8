"""Features of a folder, kept on the disk: they are made once and read again."""

import contextlib
import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from keras_es import _files as files

VERSION = 1
"""Counts changes of what is made of the same files."""

VARIABLE = "KERAS_ES_CACHE_DIR"


def folder() -> Path | None:
    """Return where features are kept, or None if they are not.

    That is `$KERAS_ES_CACHE_DIR`, nowhere if it is empty, else `keras_es` in the
    user's folder of caches.
    """
    given = os.environ.get(VARIABLE)
    if given == "":
        return None
    if given is not None:
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):  # There may be no such user.
        return Path(caches).expanduser() / "keras_es" / "audio"
    return None


def key(parts: object, paths: list[Path]) -> str:
    """Return a digest of settings and of the files' names, sizes and times."""
    stats = [(str(p), s.st_size, s.st_mtime_ns) for p in paths for s in [p.stat()]]
    return hashlib.sha256(json.dumps([VERSION, parts, stats]).encode()).hexdigest()


def load(name: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of a name, or None; what is damaged does not count."""
    where = folder()
    if where is None:
        return None
    try:
        with open(where / f"{name}.npz", "rb") as file:
            # From memory: of a damaged file NumPy forgets to close what it opened.
            stored = np.load(io.BytesIO(file.read()), allow_pickle=False)
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
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
