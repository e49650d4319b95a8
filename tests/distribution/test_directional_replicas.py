"""Directions on two replicas: each draws its own, and their estimates are averaged."""

import pytest

from tests.distribution.devices import run_on_devices

pytestmark = pytest.mark.slow

SCRIPT = """
import tempfile

x, y = data(8)
once, each = alike(x, y, 3)

def made(strategy, optimizer, build):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        return compiled(build(), optimizer())

def fit(model, dataset, epochs=1):
    model.fit(dataset, epochs=epochs, shuffle=False, verbose=0)
    return model

def dense():
    return keras_es.es_model(mlp())

def sparse():
    return keras_es.sparsify(mlp(), 0.5, seed=0)

# Of the same examples: R replicas of k directions are one of R k.
for cls in (ForwardGradient, FiniteDifference):
    for law, build in (("rademacher", sparse), ("normal", dense)):
        def optimizer(k):
            return lambda: cls(sgd(), k, law=law, seed=3)
        one = fit(made(ONE, optimizer(2 * R), build), once)
        many = fit(made(REPLICAS, optimizer(2), build), each)
        for a, b in zip(one.get_weights(), many.get_weights(), strict=True):
            np.testing.assert_allclose(b, a, 2e-3, 1e-5)
        assert_equal_replicas(many)

# It goes on from a file as if it had not stopped, of outputs and beside masks too.
for optimizer in (
    lambda: ForwardGradient("adam", 3, perturb="outputs"),
    lambda: SNES(FiniteDifference("adam"), 2, turns=Turns(2, 1)),
):
    whole = fit(made(REPLICAS, optimizer, sparse), each, 2)
    first = fit(made(REPLICAS, optimizer, sparse), each)
    with tempfile.TemporaryDirectory() as folder:
        first.save(f"{folder}/model.keras")
        with REPLICAS.scope():
            again = keras.models.load_model(f"{folder}/model.keras")
    fit(again, each)
    for a, b in zip(whole.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    assert_equal_replicas(again)
"""


def test_two_replicas_of_two_directions_are_one_of_four():
    run_on_devices(2, SCRIPT)
