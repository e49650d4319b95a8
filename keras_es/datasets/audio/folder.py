"""What a folder of recordings holds: files, what is said in them, and by whom."""

import codecs
import collections
import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from keras_es.datasets.audio.decoding import SUFFIXES

METADATA = "metadata.csv"

DIGITS = "zero one two three four five six seven eight nine".split()

_DIGIT = re.compile(r"(\d)_([^_]+)_(\d+)")
"""Names of the Free Spoken Digit Dataset: digit, speaker, index."""

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

TEST_INDICES = 5
"""Of each digit and speaker there, indices below this are for test."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One file of a folder.

    Args:
        id: Its path in the folder, without the suffix if no other has the same then.
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


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the audio files in a folder and below, links to folders included.

    Each folder is looked into once, by its own path if that is below, so that links
    may lead back.

    Args:
        folder: The folder.
    """
    seen = set()
    waiting = [folder]
    for place in waiting:  # It grows: links come after all that is there itself.
        for parent, folders, names in os.walk(place):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            below = [Path(parent, name) for name in folders]
            waiting += [path for path in below if path.is_symlink()]
            for path in (Path(parent, name) for name in names):
                kind = path.suffix.lower()
                if kind in SUFFIXES and path.name[0] != "." and path.is_file():
                    yield path


def recordings(folder: Path, say) -> list[Recording]:
    """Return what a folder holds, sorted by id.

    With `metadata.csv` these are its lines: `id|text` or `id|text|normalised text`, of
    which the last is taken, an id being the name of a file anywhere in the folder,
    with or without its suffix and its folders. Without it these are all audio files;
    what is said is then known for names DIGIT_SPEAKER_INDEX (the Free Spoken Digit
    Dataset) only. The speaker is the one of such a name, else the folder of the file.
    Names are compared in the composed form of Unicode: some disks keep the other.

    Args:
        folder: The folder.
        say: Function of a line, for what is skipped.

    Raises:
        ValueError: If there is nothing, or `metadata.csv` is not UTF-8.
    """
    files = sorted(audio_files(folder))
    if not files:
        raise ValueError(
            f"expected a folder with {', '.join(SUFFIXES)} files, and found none. "
            f"Received: dataset={str(folder)!r}"
        )
    metadata = folder / METADATA
    if metadata.is_file():
        found = list(_described(folder, _ids(folder, files), metadata, say))
        if not found:
            raise ValueError(
                f"{metadata} names no file of the folder; its lines are "
                f"id|text|normalised text. Received: dataset={str(folder)!r}"
            )
    else:
        found = [_by_name(path, id) for path, id in _ids(folder, files).items()]
    return sorted(found, key=lambda r: r.id)


def _by_name(path, id):
    name = _DIGIT.fullmatch(path.stem)
    if name is None:
        return Recording(id, path, "", _speaker(path))
    digit, speaker, index = name.groups()
    text, test = DIGITS[int(digit)], int(index) < TEST_INDICES
    return Recording(id, path, text, speaker, test)


def _speaker(path):
    # Absolute: "." has no name.
    return Path(os.path.abspath(path.parent)).name


def _ids(folder, files):
    """Return the ids of files: their paths in the folder, as short as they can be."""
    whole = {path: path.relative_to(folder) for path in files}
    counts = collections.Counter(path.with_suffix("") for path in whole.values())
    return {
        path: (short if counts[short] == 1 else inside).as_posix()
        for path, inside in whole.items()
        for short in [inside.with_suffix("")]
    }


def _described(folder, ids, metadata, say) -> Iterator[Recording]:
    """Yield the recordings that lines of a file of texts name."""
    by_name: dict[str, list[Path]] = {}
    for path in ids:
        whole = path.relative_to(folder)
        names = {whole, whole.with_suffix(""), whole.name, whole.stem}
        for name in {_composed(str(name)) for name in names}:
            by_name.setdefault(name, []).append(path)
    seen, named = set(), set()
    for number, line in enumerate(_lines(metadata), 1):
        if not line.strip():
            continue
        where = f"{metadata.name}, line {number}"
        name, *texts = (part.strip() for part in line.split("|"))
        text = next((t for t in reversed(texts) if t), "")
        paths = by_name.get(_composed(name), [])
        named.update(paths)
        if not text or len(texts) > 2:
            form = "id|text or id|text|normalised text" if text else "id|text"
            say(f"{where}: skipped, expected {form}; received {line[:60]!r}")
        elif len(paths) != 1:
            many = "several files" if paths else "no file"
            say(f"{where}: skipped, there is {many} of the name {name!r}")
        elif paths[0] in seen:
            say(f"{where}: skipped, {name!r} stands there before")
        else:
            seen.add(paths[0])
            path = paths[0]
            yield Recording(ids[path], path, text, _speaker(path))
    left = [id for path, id in ids.items() if path not in named]
    if left:
        say(
            f"{metadata.name}: skipped {len(left):,} of {len(ids):,} files, which have "
            f"no line in it: {', '.join(left[:3])}{', ...' * (len(left) > 3)}"
        )


def _lines(metadata):
    """Return the lines of a file of texts; what else Unicode breaks lines at stays."""
    content = metadata.read_bytes()
    # Spreadsheets begin their files with a mark.
    content = content.removeprefix(codecs.BOM_UTF8)
    # UTF-16 without a mark is UTF-8 with zeros, if it is of Latin letters.
    zero = content.find(b"\0")
    try:
        text, wrong = content.decode("utf-8"), zero
    except UnicodeDecodeError as error:
        text, wrong = "", error.start if zero < 0 else min(zero, error.start)
    if wrong >= 0:
        wide = zero >= 0 or content.startswith(_WIDE)
        kind = "UTF-16" if wide else "Latin-1 or Windows-1252"
        number = content.count(b"\n", 0, wrong) + 1
        line = content.split(b"\n")[number - 1]
        raise ValueError(
            f"{metadata} must be UTF-8; line {number} is not, and looks like {kind}. "
            f"Save the file as UTF-8. Received: {line[:60]!r}"
        )
    return [line.removesuffix("\r") for line in text.split("\n")]


def _composed(name):
    return unicodedata.normalize("NFC", name)
