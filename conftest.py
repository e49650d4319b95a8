"""What every test and doctest shares: quiet logs and a fresh state.

It stands at the root, and not in tests/, because the doctests of keras_es need it too.
The libraries are imported inside the fixtures: the variables below are read when they
load, and what TensorFlow prints then would otherwise end up below pytest's last line.
"""

import gc
import multiprocessing
import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["KERAS_BACKEND"] = "tensorflow"


def _processor_seconds():
    """Return what this process and its children took of processors."""
    times = os.times()
    ended = times.children_user + times.children_system
    living = sum(_seconds_of(child.pid) for child in multiprocessing.active_children())
    return times.user + times.system + ended + living


def _seconds_of(pid):
    """Return the seconds of a process that serves several tests, where Linux tells."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.started_at = _processor_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note the processor's seconds, which other load hardly changes, for --junitxml."""
    if call.when == "teardown":
        seconds = _processor_seconds() - item.started_at
        item.user_properties.append(("processor_seconds", f"{seconds:.2f}"))
    return (yield)


@pytest.fixture(scope="session", autouse=True)
def quick_graphs():
    """Trace small models quickly where `python -m tests` says so."""
    from tests.quick_graphs import make_graphs_quickly

    make_graphs_quickly()
    gc.freeze()  # What the libraries hold is not looked through again and again.


@pytest.fixture(autouse=True)
def fresh_keras():
    """Each test starts at layer name "dense", float32 and the same random state."""
    import keras
    from tensorflow.python.framework import config

    # On for good in a process that ran train.py without XLA; Keras then has no XLA.
    config.disable_op_determinism()
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
