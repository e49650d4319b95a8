"""Short versions of the results of pure evolution, each with a threshold of its own."""

import os

import pytest

from benchmarks.pure import suites, training
from keras_es import datasets

SHORT = {
    # Of 1,800 generations; five seconds for ten of them.
    "binary": (100, 0.6),
}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("suite", SHORT)
def test_a_short_run_learns(suite):
    if not os.environ.get(datasets.DATA_DIR_VARIABLE):
        pytest.skip(f"{datasets.DATA_DIR_VARIABLE} is not set")
    generations, threshold = SHORT[suite]
    (method, config), *_ = suites.SUITES[suite].methods.items()
    row = training.run(suite, method, config, 7, "validation", generations)
    assert row["accuracy"] >= threshold
