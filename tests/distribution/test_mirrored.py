"""`fit` and all around it under `MirroredStrategy`, on two and four CPU devices."""

import pytest

from tests.distribution.devices import run_on_devices
from tests.marks import slow_unless

COMMON = """
def train(strategy, build, optimizer, dataset, sparsity=0.5, epochs=2, **kwargs):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        model = keras_es.sparsify(build(), sparsity, seed=0)
        compiled(model, optimizer(), metrics=["accuracy"], **kwargs)
    history = model.fit(dataset, epochs=epochs, shuffle=False, verbose=0).history
    return model, history

def batches(n, size):
    return tf.data.Dataset.from_tensor_slices(data(n)).batch(size)

def assert_close(one, many):
    for a, b in zip(one.weights, many.weights, strict=True):
        a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
        np.testing.assert_allclose(b, a, 1e-4, 1e-5)

def variables(model):
    return [*model.variables, *model.optimizer.variables]
"""

SCRIPTS = {
    "equals one replica": """
# Masks of ones: a step is one of plain Keras, whose batch the replicas share.
optimizer = lambda: MASK_OPTIMIZERS["snes"](sgd())
one, want = train(ONE, mlp, optimizer, batches(32, 8), 0.0)
many, got = train(REPLICAS, mlp, optimizer, batches(32, 8), 0.0)
for key in ("loss", "accuracy", "population_loss"):
    np.testing.assert_allclose(got[key], want[key], 1e-4, err_msg=key)
assert_close(one, many)
assert_equal_replicas(many)

# Each replica gets the same examples. R replicas of two members are then one of 2 R:
# noise, search, moving statistics, dropout and logs.
x, y = data(8)
once, each = alike(x, y, 6)

def build():
    return mlp(keras.layers.BatchNormalization(), keras.layers.Dropout(0.2, seed=3))

def search(size):
    return lambda: OpenES(
        sgd(), size, "full", fitness_shaping="raw", sigma=0.3, turns=Turns(size, 1),
        score_optimizer=keras.optimizers.SGD(1.0),
    )

one, want = train(ONE, build, search(2 * R), once)
many, got = train(REPLICAS, build, search(2), each)
start = keras_es.masked_weights(keras_es.sparsify(build(), 0.5, seed=0))
masks = zip(start, keras_es.masked_weights(one), strict=True)
assert any((a.kernel_mask.numpy() != b.kernel_mask.numpy()).any() for a, b in masks)
for key in want:
    np.testing.assert_allclose(got[key], want[key], 1e-3, 1e-5, err_msg=key)
assert_close(one, many)
assert_equal_replicas(many)
""",
    "criterion": """
# Each replica gets the same examples and judges a pair of its own: as one replica
# that judges all pairs, with a dense beginning and two layers that exchange units.
x, y = data(8)
once, each = alike(x, y, 8)
falling = keras_es.schedules.PolynomialSparsity(4)

def build():
    return mlp(keras.layers.BatchNormalization(), keras.layers.Dense(16))

def search(pairs):
    return lambda: GuidedES(
        keras.optimizers.Adam(0.02), falling, 2, pairs, mean_learning_rate=0.5
    )

for jit_compile in (False, True):
    one, want = train(ONE, build, search(R), once, jit_compile=jit_compile)
    many, got = train(REPLICAS, build, search(1), each, jit_compile=jit_compile)
    weights = [keras_es.masked_weights(model) for model in (one, many)]
    assert len(weights[0]) > 1 and np.any(one.optimizer.search.genes.numpy())
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(
            second.kernel_mask.numpy(), first.kernel_mask.numpy()
        )
    counts = [sum(m.deployed_nnz() for m in found) for found in weights]
    assert counts == [sum(m.nnz for m in weights[0])] * 2
    assert_close(one, many)
    assert_equal_replicas(many)
""",
    "methods and failures": """
for method in (GuidedNES, Static, StraightThrough):
    model, history = train(
        REPLICAS, lambda: mlp(keras.layers.BatchNormalization()),
        lambda: method(keras.optimizers.Adam(0.02)), batches(32, 16), epochs=1,
    )
    assert np.isfinite(history["loss"]).all()
    assert history["nonfinite_members"] == [0.0]
    for masked in keras_es.masked_weights(model):
        mask = masked.kernel_mask.numpy()
        assert mask.sum() == masked.nnz
        decoded = masked.expand(masked.decode(masked.mask_scores.value))
        np.testing.assert_array_equal(mask, decoded)
    assert_equal_replicas(model)

x, y = data(16)
x[0] = np.nan
dataset = tf.data.Dataset.from_tensors((x, y)).repeat(3)
model, history = train(REPLICAS, mlp, lambda: SNES(sgd(), 2, "full"), dataset, epochs=1)
# The replica that sees the example fails, the others go on.
assert history["nonfinite_members"] == [6.0]
assert history["skipped_steps"] == [0.0]
for variable in variables(model):
    assert np.isfinite(np.asarray(variable, "float32")).all(), variable.path
assert_equal_replicas(model)

# Of the last batch only the first replica gets something.
model, history = train(REPLICAS, mlp, lambda: SNES(sgd(), 2), batches(17, 16), epochs=1)
assert np.isfinite(history["loss"]).all()
assert history["nonfinite_members"] == [2.0 * (R - 1)]
assert history["skipped_steps"] == [0.0]
assert_equal_replicas(model)
# So it is with plain gradients, and the others' statistics are 0 / 0 there.
norm = lambda: mlp(keras.layers.BatchNormalization())
model, history = train(REPLICAS, norm, sgd, batches(17, 16))
assert np.isfinite(history["loss"]).all()
assert all(np.isfinite(v.numpy()).all() for v in model.weights)
assert_equal_replicas(model)

# Copies are under the model's strategy; what is made outside of it is refused.
with REPLICAS.scope():
    made = mlp()
copy = keras_es.sparsify(made, 0.5)
assert copy.distribute_strategy is REPLICAS
alone = keras_es.es_model(mlp())
with pytest.raises(ValueError, match="Received: optimizer 'static', made outside"):
    copy.compile(Static("sgd"), "mse")
with REPLICAS.scope():
    copy.compile(Static("sgd"), "mse")
    with pytest.raises(ValueError, match=r"within `strategy.scope\\(\\)`"):
        alone.compile(Static("sgd"), "mse")
""",
    # Replicas see other examples, and the mean of their gradients moves all masks.
    "masks that move at some steps": """
often = keras_es.schedules.ConstantUpdates(0.6, update_every=3)
falling = keras_es.schedules.PolynomialSparsity(7, update_every=2)
methods = {
    "rigl": lambda: RigL(sgd(), update_schedule=often),
    "set": lambda: SET(sgd(), update_schedule=often),
    "pruning": lambda: GradualMagnitude(sgd(), sparsity_schedule=falling),
    "scores": lambda: StraightThrough(
        sgd(), score_optimizer=keras.optimizers.SGD(100.0)
    ),
}
for name, method in methods.items():
    one, want = train(ONE, mlp, method, batches(32, 8))
    many, got = train(REPLICAS, mlp, method, batches(32, 8))
    for key in ("loss", "sparsity", "mask_flip_ratio"):
        np.testing.assert_allclose(got[key], want[key], 1e-4, err_msg=name)
    for a, b in zip(*map(keras_es.masked_weights, (one, many))):
        np.testing.assert_array_equal(
            a.kernel_mask.numpy(), b.kernel_mask.numpy(), err_msg=name
        )
    assert_close(one, many)
    assert_equal_replicas(many)
""",
    "around fit": """
import tempfile
folder = tempfile.mkdtemp()

def build():
    return mlp(keras.layers.BatchNormalization(), keras.layers.Dropout(0.2, seed=3))

optimizer = lambda: GuidedNES("adam", 4)
dataset = batches(48, 16)
whole, history = train(REPLICAS, build, optimizer, dataset, epochs=4)
assert np.isfinite(history["loss"]).all()
assert_equal_replicas(whole)
compiled_by_xla, got = train(
    REPLICAS, build, optimizer, dataset, epochs=1, jit_compile=True
)
assert np.isfinite(got["loss"]).all()  # dropout differs under XLA
assert_equal_replicas(compiled_by_xla)
moving = [v for v in whole.weights if "moving_mean" in v.path]
assert len(moving) == 1 and np.abs(moving[0].numpy()).min() > 0.0

# Saved in the middle and read again under the strategy: the same bits.
half, _ = train(REPLICAS, build, optimizer, dataset, epochs=2)
half.save(f"{folder}/half.keras")
with REPLICAS.scope():
    again = keras.models.load_model(f"{folder}/half.keras")
again.fit(dataset, initial_epoch=2, epochs=4, shuffle=False, verbose=0)
for ours, theirs in zip(variables(again), variables(whole), strict=True):
    if "/held_" not in ours.path:
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)

# Several steps in one execution: the same again.
many, _ = train(
    REPLICAS, build, optimizer, dataset, epochs=4, steps_per_execution=3
)
for ours, theirs in zip(many.weights, whole.weights, strict=True):
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), 1e-4, 1e-6)
assert_equal_replicas(many)

x, y = data(20, seed=2)
predicted = whole.predict(x, verbose=0)
one = keras.models.load_model(f"{folder}/half.keras")  # without a strategy
assert one.predict(x, verbose=0).shape == predicted.shape
assert np.isfinite(whole.evaluate(x, y, verbose=0)).all()
keras_es.strip_masks(whole).export(f"{folder}/exported", verbose=False)
served = tf.saved_model.load(f"{folder}/exported")
np.testing.assert_allclose(served.serve(tf.constant(x)), predicted, 1e-4, 1e-5)
""",
}


KEPT = [(2, "equals one replica")]
# On four devices what depends on how a batch is shared out, or who fails.
ALL = [(2, script) for script in SCRIPTS]
ON_FOUR = [(4, "equals one replica"), (4, "methods and failures")]


@pytest.mark.parametrize("count, script", slow_unless(KEPT, ALL + ON_FOUR, ON_FOUR))
def test_replicas(count, script):
    run_on_devices(count, COMMON + SCRIPTS[script])


# A strategy of one device assigns variables as one of many does.
ALONE = """
for jit_compile in (False, True):
    for method in (lambda: GuidedNES("adam"), lambda: SNES(sgd(), 4), sgd):
        results = [
            train(s, mlp, method, batches(32, 8), jit_compile=jit_compile)
            for s in (ONE, REPLICAS)
        ]
        (one, want), (many, got) = results
        for key in want:
            np.testing.assert_allclose(got[key], want[key], 1e-4, 1e-6, err_msg=key)
        assert_close(one, many)
"""


@pytest.mark.slow
@pytest.mark.release
def test_a_strategy_of_one_device():
    run_on_devices(1, COMMON + ALONE)


BLOCK_SPARSE = """
def trained(strategy, method):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    layer = keras_es.layers.BlockSparseDense
    with strategy.scope():
        hidden = layer(8, sparsity=0.5, block_size=(3, 2), activation="tanh")
        layers = [keras.Input((6,)), hidden, keras.layers.Dense(3)]
        model = keras_es.ESSequential(layers)
        compiled(model, method())
    model.fit(batches(32, 8), epochs=2, shuffle=False, verbose=0)
    return model

often = keras_es.schedules.ConstantUpdates(0.6, update_every=3)
for method in (lambda: Static(sgd()), lambda: SET(sgd(), update_schedule=often)):
    one, many = (trained(strategy, method) for strategy in (ONE, REPLICAS))
    assert_close(one, many)
    assert_equal_replicas(many)
# A population of each replica's own.
start = trained(ONE, lambda: Static(sgd()))
many = trained(REPLICAS, lambda: SNES(sgd(), 2, sigma=1.0, turns=Turns(steps=1)))
assert_equal_replicas(many)
assert all(np.isfinite(v.numpy()).all() for v in many.weights)
before, after = (keras_es.masked_weights(m)[0] for m in (start, many))
assert (before.mask_scores.numpy() != after.mask_scores.numpy()).any()
assert after.stored_units().numpy().sum() == before.stored_units().numpy().sum()
"""


@pytest.mark.slow
def test_block_sparse_layers():
    run_on_devices(2, COMMON + BLOCK_SPARSE)
