"""Masked-out weights that learn: the rule in NumPy, exact counts, files, refusals."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import patterns, schedules
from keras_es.optimizers import OPTIMIZERS, GradualMagnitude, GuidedES, OpenES, Static
from tests.marks import slow
from tests.reference import problems

RATE, MOMENTUM = 0.05, 0.8
PATTERNS = {
    "weights": (patterns.Unstructured(), 1),
    "blocks": (patterns.Block(2, 4), 8),
    "channels": (patterns.Channel(), 12),
}


def linear(optimizer, pattern, **kwargs):
    """A linear model with one masked weight, and data."""
    keras.utils.set_random_seed(5)
    layer = keras_es.layers.MaskedDense(
        8, use_bias=False, sparsity=0.5, pattern=pattern, mask_seed=2
    )
    model = keras_es.ESSequential([keras.Input((12,)), layer])
    model.compile(optimizer, loss="mse", **{"jit_compile": False} | kwargs)
    random = np.random.default_rng(1)
    x = random.normal(size=(16, 12)).astype("float32")
    return model, layer.masked_weights[0], x, (x @ random.normal(size=(12, 8)))


def sgd():
    return keras.optimizers.SGD(RATE, momentum=MOMENTUM)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_rule_in_numpy(name):
    """w += U(g) (m + (1 - m)/sqrt(s)); magnitudes choose the mask of each step."""
    pattern, size = PATTERNS[name]
    optimizer = GradualMagnitude(
        sgd(),
        sparsity_schedule=schedules.ConstantSparsity(),
        masked_out="learn",
    )
    model, masked, x, y = linear(optimizer, pattern)
    optimizer.build(model.trainable_variables)
    w, m = masked.kernel.numpy(), masked.kernel_mask.numpy()
    velocity = np.zeros_like(w)
    for _ in range(6):
        g = 2.0 * x.T @ (x @ (w * m) - y) / y.size
        velocity = MOMENTUM * velocity - RATE * g
        w = w + velocity * np.where(m, 1.0, size**-0.5)
        model.train_on_batch(x, y)
        np.testing.assert_allclose(masked.kernel.numpy(), w, 1e-4, 1e-5)
        (slot,) = optimizer.inner.slots[id(masked.kernel)]
        np.testing.assert_allclose(slot.numpy(), velocity, 1e-4, 1e-5)
        sizes = np.array(masked.reduce(np.abs(w)))
        largest = np.argsort(-sizes, axis=None)[: masked.unit_count]
        chosen = np.zeros(sizes.size, bool)
        chosen[largest] = True
        m = np.array(masked.expand(chosen.reshape(sizes.shape)))
        np.testing.assert_array_equal(masked.kernel_mask.numpy(), m)


def test_the_share_falls_while_masks_are_looked_for():
    """It is s**(-p/2) of an update, p = t/3 and then 1; here of a plain gradient."""
    rate = keras.optimizers.SGD(RATE)
    model, masked, x, y = linear(GuidedES(rate, explore_until=3), patterns.Block(2, 4))
    model.optimizer.build(model.trainable_variables)
    for step in range(5):
        w, m = masked.kernel.numpy(), masked.kernel_mask.numpy()
        update = -RATE * 2.0 * x.T @ (x @ (w * m) - y) / y.size
        share = np.where(m, 1.0, 8 ** (-0.5 * min(1.0, step / 3)))
        model.train_on_batch(x, y)
        np.testing.assert_allclose(
            masked.kernel.numpy(), w + share * update, 1e-4, 1e-5
        )
    with pytest.raises(ValueError, match=r'masked_out="learn".*explore_until=3'):
        GuidedES("sgd", masked_out="rest", explore_until=3)


@pytest.mark.parametrize(
    ("active", "end_step"), [(1, None), (3, None), (1, 3)], ids=["1", "3", "dense"]
)
def test_many_that_wait_for_few_learn_less(active, end_step):
    """1/sqrt(q) of an update, and sqrt(q s**-1); q = 20 n_1 / n_0 in [0.1, 1].

    Of 256 units: 0.1 and 0.24; and from 1 downwards while their number falls.
    """
    keras.utils.set_random_seed(5)
    layer = keras_es.layers.MaskedDense(
        32, use_bias=False, sparsity=1 - active / 256, pattern=patterns.Block(2, 2)
    )
    model = keras_es.ESSequential([keras.Input((32,)), layer])
    falls = end_step and schedules.PolynomialSparsity(end_step)
    optimizer = GuidedES(keras.optimizers.SGD(RATE), sparsity_schedule=falls)
    model.compile(optimizer, loss="mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    (masked,) = layer.masked_weights
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 16, 32)).astype("float32")
    seen = []
    for _ in range(4):
        w, m = masked.kernel.numpy(), masked.kernel_mask.numpy()
        update = -RATE * 2.0 * x.T @ (x @ (w * m) - y) / y.size
        q = np.clip(20 * m.sum() / max((~m).sum(), 1), 0.1, 1)
        model.train_on_batch(x, y)
        expected = w + np.where(m, q**-0.5, (q / 4) ** 0.5) * update
        np.testing.assert_allclose(masked.kernel.numpy(), expected, 1e-4, 1e-6)
        seen.append(round(float(q), 2))
    expected = {1: [0.1] * 4, 3: [0.24] * 4}[active]
    assert seen == ([1.0, *seen[1:3], 0.1] if end_step else expected)


@pytest.mark.parametrize("method", sorted(OPTIMIZERS))
def test_every_method_can(method):
    """Weights move where they are masked out, the number of non-zeros is exact."""
    arguments = problems.SCHEDULES.get(method, {})
    optimizer = OPTIMIZERS[method](sgd(), masked_out="learn", **arguments)
    model = problems.compiled(optimizer)
    (masked,) = keras_es.masked_weights(model)
    before = masked.kernel.numpy()
    problems.fit(model, epochs=3)
    assert np.all(masked.kernel.numpy() != before)
    assert masked.kernel_mask.numpy().sum() == masked.nnz
    config = optimizer.get_config()
    assert OPTIMIZERS[method].from_config(config).masked_out == "learn"


def test_active_weights_get_the_whole_update_to_the_bit():
    ends = {}
    for kind in ("rest", "learn"):
        model, masked, x, y = linear(
            Static(sgd(), masked_out=kind), patterns.Block(2, 4)
        )
        for _ in range(4):
            model.train_on_batch(x, y)
        ends[kind] = masked.kernel.numpy()
    m = masked.kernel_mask.numpy()
    np.testing.assert_array_equal(ends["rest"][m], ends["learn"][m])
    assert np.all(ends["rest"][~m] != ends["learn"][~m])


def test_a_step_that_is_void_moves_nothing():
    model, masked, x, y = linear(
        GradualMagnitude(
            sgd(), sparsity_schedule=schedules.ConstantSparsity(), masked_out="learn"
        ),
        patterns.Unstructured(),
    )
    model.train_on_batch(x, y)
    before = problems.weights_of(model)
    model.train_on_batch(x, np.full_like(y, np.nan))
    for name, value in problems.weights_of(model).items():
        if name.endswith(("kernel", "kernel_mask", "mask_scores", "momentum")):
            np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_training_goes_on_to_the_bit_after_a_file(tmp_path, jit_compile):
    def make():
        return GradualMagnitude("adam", end_step=3, masked_out="learn")

    problems.assert_goes_on_to_the_bit(tmp_path, make, jit_compile=jit_compile)


def test_for_run_is_as_sparse_as_wanted_after_half_of_the_steps():
    model = problems.make_model()
    run = keras_es.optimizers.for_run
    optimizer = run(GradualMagnitude, "adam", model, 100, masked_out="learn")
    assert optimizer.sparsity_schedule.end_step == 50 and not optimizer.scheduled
    assert run(GradualMagnitude, "adam", model, 100).sparsity_schedule.end_step == 75


def test_what_cannot_learn_is_refused():
    layer = keras_es.layers.BlockSparseDense(8, sparsity=0.5, block_size=(4, 4))
    model = keras_es.ESSequential([keras.Input((16,)), layer])
    with pytest.raises(ValueError, match="learn.*block-sparse.*Received: "):
        Static("sgd", masked_out="learn").build(model.trainable_variables)
    with pytest.raises(ValueError, match="no gradient.*Received: masked_out='learn'"):
        OpenES(None, masked_out="learn")
    with pytest.raises(ValueError, match="`masked_out` must be one of .*'learn'"):
        Static("sgd", masked_out="grow")
