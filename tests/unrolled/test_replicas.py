"""Particles spread over replicas and workers are the particles of one device."""

import pathlib

import numpy as np
import pytest

from tests.distribution.devices import run_on_devices
from tests.distribution.launch import run_workers

SCRIPT = """
from keras_es import unrolled
from tests.unrolled.common import Powers

def trained(strategy, steps, make=unrolled.PES, load=None, **kwargs):
    with strategy.scope():
        if load:
            model = keras.models.load_model(load)
        else:
            model = unrolled.UnrolledModel(Powers(noisy=True))
            model.compile(
                make(keras.optimizers.SGD(0.001), particles=6, unroll_length=2,
                     sigma=0.1, seed=5), **kwargs)
    model.fit(steps_per_epoch=steps, verbose=0)
    return model

def of(model):
    return float(model.task.weight.numpy())
"""


@pytest.mark.slow
def test_two_replicas_are_one_device():
    run_on_devices(
        2,
        SCRIPT
        + """
one, two = (trained(s, 3, jit_compile=False) for s in (ONE, REPLICAS))
np.testing.assert_allclose(of(one), of(two), rtol=1e-6)
logs = [m.fit(steps_per_epoch=2, verbose=0).history for m in (one, two)]
for name in logs[0]:
    np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-5)
np.testing.assert_allclose(
    *(m.evaluate(steps=1, verbose=0) for m in (one, two)), rtol=1e-5)

with REPLICAS.scope():
    model = unrolled.UnrolledModel(Powers())
try:
    model.compile(unrolled.NRES("sgd", particles=5, unroll_length=2, sigma=0.1))
except ValueError as error:
    assert "multiple of the number of replicas" in str(error), error
else:
    raise AssertionError
""",
    )


@pytest.mark.slow
def test_replicas_compiled_by_xla_are_one_device():
    run_on_devices(
        2,
        SCRIPT
        + """
one, two = (trained(s, 3, jit_compile=True) for s in (ONE, REPLICAS))
np.testing.assert_allclose(of(one), of(two), rtol=1e-6)
""",
    )


@pytest.mark.slow
def test_a_file_of_two_replicas_goes_on_with_any_number():
    run_on_devices(
        2,
        SCRIPT
        + """
two = trained(REPLICAS, 3, jit_compile=False)
import tempfile
path = tempfile.mkdtemp() + "/two.keras"
two.save(path)
on_one, on_two = (trained(s, 3, load=path) for s in (ONE, REPLICAS))
two.fit(steps_per_epoch=3, verbose=0)
assert of(on_two) == of(two)
np.testing.assert_allclose(of(on_one), of(two), rtol=1e-6)
""",
    )


@pytest.mark.slow
def test_only_one_all_reduce_of_the_gradient_travels():
    run_on_devices(
        2,
        SCRIPT
        + """
sent = []
extended = REPLICAS.extended.__class__
within = extended._batch_reduce_to
def batch_reduce_to(self, op, pairs, *args):
    sent.extend(tuple(v.values[0].shape) for v, _ in pairs)
    return within(self, op, pairs, *args)
extended._batch_reduce_to = batch_reduce_to
trained(REPLICAS, 1, jit_compile=False)
# The gradient of the one weight, and nothing of a particle's shape.
assert sent == [()], sent
""",
    )


@pytest.mark.slow
def test_two_workers_are_one_process():
    worker = pathlib.Path(__file__).with_name("worker.py")
    outputs = run_workers(2, worker)
    (alone,) = run_workers(1, worker, UNROLLED_ALONE="1")
    values = [[float(x) for x in out.split()[-2:]] for out in [*outputs, alone]]
    assert values[0] == values[1]
    np.testing.assert_allclose(values[0], values[2], rtol=1e-5)
