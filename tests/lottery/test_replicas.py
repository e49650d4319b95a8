"""Tickets under `MirroredStrategy`: replicas stay equal; what is stopped goes on."""

import pytest

from tests.distribution.devices import run_on_devices

SCRIPT = """
import tempfile
from keras_es.callbacks import TrainingStopped
from tests.lottery.common import find, snes
from tests.lottery.test_find import Stop, same

def tickets(folder=None, **kwargs):
    keras.backend.clear_session()
    with REPLICAS.scope():
        return find(
            snes(semi_updates=False), rounds=1, folder=folder,
            on_round=lambda model, ticket: assert_equal_replicas(model), **kwargs
        )

whole = tickets()
assert whole.nonzero == 22
folder = tempfile.mkdtemp()
try:
    tickets(folder, callbacks=[Stop(6)])
    raise AssertionError("it was not stopped")
except TrainingStopped:
    same(tickets(folder), whole)
"""


@pytest.mark.slow
def test_tickets_on_two_replicas():
    run_on_devices(2, SCRIPT)
