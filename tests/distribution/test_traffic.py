"""What travels in a step does not grow with the population, but for n losses."""

import pytest

from tests.distribution.devices import COUNTS, run_on_devices

pytestmark = pytest.mark.slow

SCRIPT = """
from benchmarks import traffic

def sent(method, members, **kwargs):
    keras.backend.clear_session()
    with REPLICAS.scope():
        model = keras_es.sparsify(mlp(keras.layers.BatchNormalization()), 0.5, seed=0)
        compiled(model, method(sgd(), members, **kwargs))
    batches = tf.data.Dataset.from_tensors(data(128))
    with traffic.recorded() as record:
        model.fit(batches, shuffle=False, verbose=0)
    return model, record

def total(record, kind=None, conditional=(True, False)):
    # All replicas send the same number of bytes.
    return sum(
        size for name, size, branch in record
        if kind in (None, name) and branch in conditional
    ) / R

def check(method, **kwargs):
    model, few = sent(method, 4, **kwargs)
    _, many = sent(method, 32, **kwargs)
    weights = sum(4 * v.shape.num_elements() for v in model.trainable_variables)
    masked = keras_es.masked_weights(model)
    scores = sum(4 * m.mask_scores.shape.num_elements() for m in masked)
    kernels = sum(4 * m.kernel.shape.num_elements() for m in masked)
    statistics = sum(
        4 * v.shape.num_elements() for v in model.variables if "moving_" in v.path
    )
    # Losses, and whether they are finite: 8 bytes for each member of the step.
    losses = 8 * model.optimizer.members_in_step
    assert total(few, "all_gather") == losses, few
    assert total(many) - total(few) == total(many, "all_gather") - losses
    assert few and len(few) == len(many)
    # In each step the gradients of the weights, half as much for the union of the
    # members' masks, moving statistics, and for guided methods dL/dm.
    step = weights + kernels / 2 + statistics + scores * (method is GuidedNES)
    # Once in a generation the search gradient, for SNES and GuidedNES of two parts, and
    # once more within the optimizer of the scores.
    generation = scores * {SNES: 2, OpenES: 2, BernoulliNES: 2, GuidedNES: 3}[method]
    if model.optimizer.taking_turns is None:
        assert total(few, "all_reduce") <= step + generation
    else:
        assert total(few, "all_reduce", [False]) == step
        assert total(few, conditional=[True]) <= generation

check(SNES, turns=Turns(2))
check(GuidedNES, turns=Turns(2))
"""

# Slow to trace for four replicas; what differs is within each of them.
MORE = """
check(OpenES, batch_mode="full")
check(BernoulliNES, turns=Turns(2), semi_updates=False)
"""


@pytest.mark.parametrize("count", COUNTS)
def test_traffic_does_not_grow_with_the_population(count):
    run_on_devices(count, SCRIPT + MORE if count == 2 else SCRIPT)
