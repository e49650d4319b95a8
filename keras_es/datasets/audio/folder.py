"""What a folder of recordings holds: files, what is said in them, and by whom."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from keras_es.datasets.audio.decoding import SUFFIXES

METADATA = "metadata.csv"

DIGITS = "zero one two three four five six seven eight nine".split()

_DIGIT = re.compile(r"(\d)_([^_]+)_(\d+)")
"""Names of the Free Spoken Digit Dataset: digit, speaker, index."""

TEST_INDICES = 5
"""Of each digit and speaker there, indices below this are for test."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One file of a folder.

    Args:
        id: Its path in the folder, without the suffix.
        path: The file.
        text: What is said in it, or "" if that is not known.
        speaker: Who says it.
        test: Whether the data set itself puts it into its test split; None if it has
            none.
    """

    id: str
    path: Path
    text: str
    speaker: str
    test: bool | None = None


def recordings(folder: Path, say) -> list[Recording]:
    """Return what a folder holds, sorted by id.

    With `metadata.csv` these are its lines: `id|text` or `id|text|normalised text`, of
    which the last is taken, an id being the name of a file anywhere in the folder,
    with or without its suffix and its folders. Without it these are all audio files;
    what is said is then known for names DIGIT_SPEAKER_INDEX (the Free Spoken Digit
    Dataset) only. The speaker is the one of such a name, else the folder of the file.

    Args:
        folder: The folder.
        say: Function of a line, for what is skipped.

    Raises:
        ValueError: If there is nothing.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        if path.is_file() and not path.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"expected a folder with {', '.join(SUFFIXES)} files, and found none. "
            f"Received: dataset={str(folder)!r}"
        )
    metadata = folder / METADATA
    if metadata.is_file():
        found = list(_described(folder, files, metadata, say))
        if not found:
            raise ValueError(
                f"{metadata} names no file of the folder; its lines are "
                f"id|text|normalised text. Received: dataset={str(folder)!r}"
            )
    else:
        found = [_by_name(folder, path) for path in files]
    return sorted(found, key=lambda r: r.id)


def _by_name(folder, path):
    name = _DIGIT.fullmatch(path.stem)
    if name is None:
        return Recording(_id(folder, path), path, "", path.parent.name)
    digit, speaker, index = name.groups()
    text, test = DIGITS[int(digit)], int(index) < TEST_INDICES
    return Recording(_id(folder, path), path, text, speaker, test)


def _id(folder, path):
    return path.relative_to(folder).with_suffix("").as_posix()


def _described(folder, files, metadata, say) -> Iterator[Recording]:
    """Yield the recordings that lines of a file of texts name."""
    by_name: dict[str, list[Path]] = {}
    for path in files:
        whole = path.relative_to(folder).as_posix()
        names = {whole, _id(folder, path), path.name, path.stem}
        for name in names:
            by_name.setdefault(name, []).append(path)
    seen = set()
    # utf-8-sig: spreadsheets begin their files with a mark.
    lines = metadata.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{metadata.name}, line {number}"
        name, *texts = (part.strip() for part in line.split("|"))
        text = next((t for t in reversed(texts[:2]) if t), "")
        paths = by_name.get(name, [])
        if not text:
            say(f"{where}: skipped, expected id|text; received {line[:60]!r}")
        elif len(paths) != 1:
            many = "several files" if paths else "no file"
            say(f"{where}: skipped, there is {many} of the name {name!r}")
        elif paths[0] in seen:
            say(f"{where}: skipped, {name!r} stands there before")
        else:
            seen.add(paths[0])
            path = paths[0]
            yield Recording(_id(folder, path), path, text, path.parent.name)
