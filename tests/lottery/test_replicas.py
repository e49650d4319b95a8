"""Tickets under `MirroredStrategy`: replicas stay equal; what is stopped goes on."""

import pytest

from tests.distribution.devices import run_on_devices

SCRIPT = """
import tempfile
from keras_es import lottery
from keras_es.callbacks import TrainingStopped
from tests.lottery.common import DATA, find, snes
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

def by_gradients():
    ticket = find("sgd", score="snip", rounds=1, steps=1)
    loss = "sparse_categorical_crossentropy"
    around = lottery.flatness(ticket.model(), DATA, (0.0,), 1, iterations=2, loss=loss)
    return ticket.masks, around.eigenvalue

alone = by_gradients()
with REPLICAS.scope():
    masks, eigenvalue = by_gradients()
for name, mask in masks.items():
    np.testing.assert_array_equal(mask, alone[0][name])
np.testing.assert_allclose(eigenvalue, alone[1], rtol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.release
def test_tickets_on_two_replicas():
    run_on_devices(2, SCRIPT)
