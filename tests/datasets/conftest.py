"""Where recordings are read in these tests: without a cache, or a library."""

import pytest

from keras_es.datasets.audio import cache, decoding


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, "")


@pytest.fixture
def plain(monkeypatch):
    """Neither tensorflow-io nor soundfile nor soxr."""

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(decoding, "_tensorflow_io", lambda: None)
    monkeypatch.setattr(decoding, "_found", lambda module: False)
    monkeypatch.setattr(decoding, "_import", missing)
