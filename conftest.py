"""What every test and doctest shares: quiet logs, small thread pools, a fresh state.

It stands at the root, and not in tests/, because the doctests of keras_es need it too.
The libraries are imported inside the fixtures: the variables below are read when they
load, and what TensorFlow prints then would otherwise end up below pytest's last line.
"""

import collections
import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["KERAS_BACKEND"] = "tensorflow"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker gets one core; pools as large as the machine would fight for them.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    """Add the option that shortens a second run, on another TensorFlow."""
    parser.addoption(
        "--every",
        type=int,
        default=1,
        help="of a test with many cases, run the first and every so many after it; "
        "with 2 or more, of slow tests the first alone",
    )


def pytest_collection_modifyitems(config, items):
    """Leave out cases between; every test keeps its first one."""
    every = config.getoption("--every")
    if every < 1:
        raise pytest.UsageError(f"--every: expected at least 1. Received: {every}")
    cases, kept, left_out = collections.Counter(), [], []
    for item in items:
        test = item.nodeid.partition("[")[0]
        later = cases[test] if item.get_closest_marker("slow") else cases[test] % every
        (left_out if every > 1 and later else kept).append(item)
        cases[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(autouse=True)
def fresh_keras():
    """Each test starts at layer name "dense", float32 and the same random state."""
    import keras

    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """Gives doctests the names that every user of the package has imported."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_es

    doctest_namespace.update(keras=keras, keras_es=keras_es, np=np, tf=tf)
