"""Features are made once, and again when a file changed or what is kept is damaged."""

import os

import numpy as np
import pytest

from keras_es import _files
from keras_es.datasets import audio
from keras_es.datasets.audio import cache, utterances
from tests.datasets.recordings import lines_of, tone, write


def test_features_come_from_the_cache_until_a_file_changes(
    tmp_path, plain, monkeypatch
):
    where, data_dir = tmp_path / "cache", tmp_path / "data"
    monkeypatch.setenv(cache.VARIABLE, str(where))
    for name in ("a", "b"):
        write(data_dir / f"{name}.wav", tone())
    (data_dir / "c.wav").write_bytes(b"")
    seen = []
    real = utterances.read

    def read(path, rate, **options):
        seen.append(path.stem)
        return real(path, rate, **options)

    monkeypatch.setattr(utterances, "read", read)

    def load():
        seen.clear()
        data, said = lines_of(data_dir)
        assert said == ["c: skipped, the file is empty"]
        return [(u.samples.tobytes(), u.mel.tobytes()) for u in data.train]

    first = load()
    assert seen == ["a", "b", "c"]
    assert load() == first and seen == []
    [stored] = where.iterdir()
    stored.write_bytes(stored.read_bytes()[:-100])
    assert load() == first and seen == ["a", "b", "c"]
    for save in (np.save, np.savez):  # an array by itself, an archive of others
        with open(stored, "wb") as file:
            save(file, np.zeros(3))
        assert load() == first and seen == ["a", "b", "c"]
    os.utime(data_dir / "b.wav", (1, 1))
    assert load() == first and seen == ["a", "b", "c"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "in it"))
    assert load() == first  # a cache that cannot be written is done without


@pytest.mark.parametrize("error", [PermissionError(13, "no"), MemoryError()])
def test_what_may_be_there_the_next_time_is_read_again(
    tmp_path, plain, monkeypatch, error
):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    for name in "abc":
        write(tmp_path / "data" / f"{name}.wav", tone(0.1))
    real = utterances.read

    def read(path, rate, **options):
        if path.stem == "b":
            raise error
        return real(path, rate, **options)

    with monkeypatch.context() as context:
        context.setattr(utterances, "read", read)
        _, [line] = lines_of(tmp_path / "data")
        assert line.startswith("b: skipped, ")
    data, said = lines_of(tmp_path / "data")
    assert len(data.train) == 2 and said == []


def test_a_user_whom_there_is_not(tmp_path, monkeypatch):
    with pytest.raises(
        _files.OutputError, match="~nosuchuser/x: there is no such user"
    ):
        audio.load("~nosuchuser/x")
    monkeypatch.setenv(cache.VARIABLE, "~nosuchuser/x")
    write(tmp_path / "a.wav", tone())
    with pytest.raises(
        _files.OutputError, match="~nosuchuser/x: there is no such user"
    ):
        audio.load(tmp_path)
