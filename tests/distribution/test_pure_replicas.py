"""Pure evolution on two replicas: as one population, and by semi-updates."""

import pytest

from tests.distribution.devices import run_on_devices
from tests.marks import slow_unless
from tests.reference import pure

pytestmark = pytest.mark.slow

REST = [n for n in pure.NAMES if n not in ("open_es", "genetic_algorithm")]

SCRIPT = """
from tests.reference import pure

x, y = pure.problems.data()
once, each = alike(x, y, 3)

def trained(strategy, name, dataset, **kwargs):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        norm = keras.layers.BatchNormalization()
        model = pure.compiled(name, pure.make_model([norm], masked=MASKED), **kwargs)
    before = model.get_weights()
    history = model.fit(dataset, epochs=1, shuffle=False, verbose=0).history
    assert any((a != b).any() for a, b in zip(before, model.get_weights()))
    return model, history

def compare(name, semi=False, **kwargs):
    # One population, wherever its members are evaluated.
    mode = {} if name == "alopex" else {"semi_updates": semi}
    members = {} if name == "alopex" else {"members": 6 * R}
    one, want = trained(ONE, name, once, **members, **mode, **kwargs)
    if members:
        members = {"members": 6}
    many, got = trained(REPLICAS, name, each, **members, **mode, **kwargs)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], 1e-3, 1e-5, err_msg=key)
    for a, b in zip(one.weights, many.weights, strict=True):
        a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
        np.testing.assert_allclose(b, a, 1e-3, 1e-5, err_msg=name)
    assert_equal_replicas(many)

def semi(name):
    many, history = trained(REPLICAS, name, each, members=6)
    assert np.isfinite(history["loss"]).all()
    assert_equal_replicas(many)

MASKED = False
"""

STRATEGY = """
compare(NAME)
if NAME != "alopex":
    semi(NAME)
"""

MORE = """
# The mean of two search gradients of raw losses is that of both populations.
compare("open_es", True, fitness_shaping="raw", mean_optimizer="sgd")
# Pairs of a replica are orthogonal: raw losses of either are unbiased.
many, history = trained(REPLICAS, "snes", each, members=6, noise=Orthogonal())
assert np.isfinite(history["loss"]).all()
assert_equal_replicas(many)
compare("open_es", noise=Outputs(0.1))
raw = {"fitness_shaping": "raw", "mean_optimizer": "sgd"}
compare("open_es", True, noise=Outputs(0.1), **raw)
# Each replica draws of its own examples.
many, history = trained(REPLICAS, "open_es", each, members=6, batch_mode=Sampled(5))
assert np.isfinite(history["loss"]).all()
assert_equal_replicas(many)
MASKED = True
compare("open_es")
"""


@pytest.mark.parametrize("name", slow_unless([], pure.NAMES, REST))
def test_two_replicas_of_six_members_are_one_of_twelve(name):
    run_on_devices(2, f"NAME = {name!r}\n" + SCRIPT + STRATEGY)


@pytest.mark.release
def test_semi_updates_of_raw_losses_noise_on_outputs_and_masks():
    run_on_devices(2, SCRIPT + MORE)
