"""`semi_updates=False`: replicas are one population; True: what NumPy says it is."""

import pytest

from tests.distribution.devices import COUNTS, run_on_devices
from tests.marks import release

pytestmark = pytest.mark.slow

GLOBAL = """
# Each replica gets the same examples as the one replica of R times the members.
x, y = data(8)
once, each = alike(x, y, 4)

def trained(strategy, method, members, dataset, jit_compile, rate=None, held=1, **kw):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        if rate is not None:
            kw["score_optimizer"] = keras.optimizers.SGD(rate)
        model = keras_es.sparsify(mlp(keras.layers.BatchNormalization()), 0.5, seed=0)
        kw |= {"turns": Turns(members, held)}
        optimizer = method(sgd(), members, "full", semi_updates=False, **kw)
        compiled(model, optimizer, jit_compile=jit_compile)
    masks = [m.kernel_mask.numpy() for m in keras_es.masked_weights(model)]
    history = model.fit(dataset, epochs=2, shuffle=False, verbose=0).history
    moved = zip(masks, keras_es.masked_weights(model))
    assert any((mask != m.kernel_mask.numpy()).any() for mask, m in moved), method
    return model, history

def compare(method, jit_compile=False, **kwargs):
    one, want = trained(ONE, method, 2 * R, once, jit_compile, **kwargs)
    many, got = trained(REPLICAS, method, 2, each, jit_compile, **kwargs)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], 1e-3, 1e-5, err_msg=key)
    for a, b in zip(one.weights, many.weights, strict=True):
        a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
        np.testing.assert_allclose(b, a, 1e-4, 1e-5, err_msg=method.__name__)
    assert_equal_replicas(many)

compare(SNES)
compare(OpenES, rate=1.0)
compare(BernoulliNES, rate=1.0)
compare(GuidedNES, rate=3.0)
"""

MORE = """
compare(GuidedNES, correction=1.0, rate=3.0)
compare(OpenES, jit_compile=True, rate=1.0)
compare(SNES, held=2)
compare(GuidedNES, held=2, rate=3.0)
"""


METHODS, VARIANTS = GLOBAL, GLOBAL.partition("compare(SNES)")[0] + MORE


@pytest.mark.parametrize(
    "count, script",
    [
        pytest.param(2, METHODS, id="2-methods"),
        pytest.param(2, VARIANTS, id="2-variants"),
        release(4, METHODS, id="4-methods"),
    ],
)
def test_replicas_ranked_together_are_one_population(count, script):
    run_on_devices(count, script)


SEMI = """
P = 4
with REPLICAS.scope():
    model = keras_es.sparsify(mlp(), 0.5, seed=0)
    compiled(model, OpenES(sgd(), P, "full", sigma=0.3))
    model.optimizer.build(model.trainable_variables)
optimizer = model.optimizer
losses = np.random.default_rng(0).normal(size=(R, P)).astype("float32")

def search():
    mine = tf.constant(losses)[collectives.replica_index()]
    noises = [optimizer.search.noise(pair) for pair in range(P // 2)]
    gradient = optimizer.estimate(mine, tf.fill([P], True), None)
    return noises, collectives.mean_over_replicas(gradient)

noises, gradient = tf.function(lambda: REPLICAS.run(search))()
parts = REPLICAS.experimental_local_results
local = lambda value: [np.asarray(v) for v in parts(value)]
for i, result in enumerate(gradient):
    want = 0.0
    for r in range(R):
        pairs = [local(noise[i])[r] for noise in noises]
        eps = np.stack([sign * e for e in pairs for sign in (1.0, -1.0)])
        ranks = losses[r].argsort().argsort()
        utilities = 0.5 - ranks / (P - 1)
        want = want - np.tensordot(utilities, eps, 1) / (P * 0.3) / R
    for replica in local(result):
        np.testing.assert_allclose(replica, want, 1e-4, 1e-6)
    first, second, *_ = local(noises[0][i])
    assert not np.allclose(first, second)
"""


@pytest.mark.parametrize("count", COUNTS)
def test_semi_updates_equal_numpy(count):
    run_on_devices(count, SEMI)
