"""Short versions of the results of pure evolution, each with a threshold of its own."""

import os

import pytest

from benchmarks.pure import suites, training
from keras_es.datasets import tfds
from tests.marks import slow_unless

SHORT = {
    # Of 4,000 generations, for 0.93.
    "binary": (1000, 0.9),
    # 0.969 on another seed; noise on weights of all layers has 0.89 to 0.91 after 500.
    "mnist-11k": (400, 0.96),
    # 0.964 on another seed.
    "mnist-30k": (300, 0.95),
    # The whole run: 0.24 to 0.26 on other seeds, where the peer has 0.18 to 0.22.
    "cifar": (640, 0.23),
}
"""Suite: generations, and the accuracy on held-out examples that they must reach."""

MINUTES = ["mnist-11k", "mnist-30k", "cifar"]


@pytest.mark.data
@pytest.mark.parametrize("suite", slow_unless([], SHORT, MINUTES))
def test_a_short_run_learns(suite):
    if not os.environ.get(tfds.DATA_DIR_VARIABLE):
        pytest.skip(f"{tfds.DATA_DIR_VARIABLE} is not set")
    generations, threshold = SHORT[suite]
    (method, config), *_ = suites.SUITES[suite].methods.items()
    config = {key: value for key, value in config.items() if key != "generations"}
    row = training.run(suite, method, config, 7, "validation", generations)
    assert row["accuracy"] >= threshold
