"""What methods with schedules share: slots, ends, refusals, void steps."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import patterns, schedules
from keras_es.optimizers import SET, GradualMagnitude, RigL, StraightThrough
from tests.marks import slow
from tests.reference import problems

EVERY_STEP = schedules.ConstantUpdates(0.5, update_every=1)
INNER = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
    "ema": lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
}
METHODS = {
    "rigl": lambda inner: RigL(inner, update_schedule=EVERY_STEP),
    "set": lambda inner: SET(inner, update_schedule=EVERY_STEP),
    "straight_through": lambda inner: StraightThrough(
        inner, score_optimizer=keras.optimizers.SGD(100.0)
    ),
}


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("method", METHODS)
def test_what_grows_starts_anew(method, inner):
    optimizer = METHODS[method](INNER[inner]())
    model = problems.compiled(optimizer)
    (masked,) = keras_es.masked_weights(model)
    x, y = problems.data()
    count = 0
    for _ in range(4):
        before, latent = masked.kernel_mask.numpy(), masked.kernel.numpy()
        model.train_on_batch(x, y)
        grown = masked.kernel_mask.numpy() & ~before
        kernel = masked.kernel.numpy()[grown]
        wanted = 0.0 if optimizer.grows_from_zero else latent[grown]
        np.testing.assert_array_equal(kernel, np.broadcast_to(wanted, kernel.shape))
        for slot in optimizer.inner.slots[id(masked.kernel)]:
            start = np.zeros_like(kernel)
            if slot.name.endswith("_average"):
                start = kernel
            if slot.name.endswith("_accumulator"):
                start = np.full_like(kernel, 0.3)
            np.testing.assert_array_equal(slot.numpy()[grown], start)
        count += grown.sum()
    assert count > 0


@pytest.mark.parametrize("method", [RigL, GradualMagnitude])
def test_end_is_asked_for(method):
    with pytest.raises(ValueError, match="at which step .*end_step=.*Received: end_st"):
        method("adam")


@pytest.mark.parametrize("method", [RigL, SET, GradualMagnitude])
def test_only_one_of_end_and_schedule(method):
    kind = "sparsity_schedule" if method is GradualMagnitude else "update_schedule"
    with pytest.raises(ValueError, match=f"either `end_step`.*or `{kind}`"):
        kinds = schedules.PolynomialSparsity, schedules.CosineUpdates
        method("adam", 100, kinds[kind == "update_schedule"](100))
    wrong = schedules.CosineUpdates if "sparsity" in kind else schedules.OneShot
    with pytest.raises(ValueError, match=f"`{kind}` must be a schedule .*Received: "):
        method("adam", **{kind: wrong(100)})
    with pytest.raises(ValueError, match="`end_step` must be .*Received: end_step=0"):
        method("adam", end_step=0)


@pytest.mark.parametrize("method", [RigL, GradualMagnitude])
def test_block_sparse_layers_are_refused(method):
    layer = keras_es.layers.BlockSparseDense(8, sparsity=0.5, block_size=(4, 4))
    model = keras_es.ESSequential([keras.Input((16,)), layer])
    optimizer = method("adam", end_step=100)
    with pytest.raises(ValueError, match="Use SET, or .*Received: '.*BlockSparseDense"):
        optimizer.build(model.trainable_variables)


def test_set_moves_stored_blocks():
    layer = keras_es.layers.BlockSparseDense(16, sparsity=0.5, block_size=(2, 4))
    model = keras_es.ESSequential([keras.Input((problems.INPUTS,)), layer])
    problems.compiled(METHODS["set"]("sgd"), model, loss="mse")
    (masked,) = layer.masked_weights
    x, _ = problems.data()
    seen = set()
    for _ in range(3):
        before = np.array(masked.stored_units())
        logs = model.train_on_batch(x, np.ones((len(x), 16)), return_dict=True)
        units = np.array(masked.stored_units())
        np.testing.assert_array_equal(units.sum(axis=0), [3] * 4)
        assert logs["mask_flip_ratio"] == pytest.approx((units != before).mean())
        values = masked.kernel.numpy()
        assert values.shape == (4, 3, 2, 4)
        grown = (units & ~before).sum()
        assert (np.abs(values).sum(axis=(2, 3)) == 0).sum() == grown
        seen.add(units.tobytes())
    assert len(seen) == 3


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_masks_rest_between_updates_and_after_the_end(jit_compile):
    schedule = schedules.CosineUpdates(end_step=8, update_every=3)
    model = problems.compiled(
        SET("adam", update_schedule=schedule), jit_compile=jit_compile
    )
    x, y = problems.data()
    flips = [
        model.train_on_batch(x, y, return_dict=True)["mask_flip_ratio"]
        for _ in range(12)
    ]
    assert [i + 1 for i, share in enumerate(flips) if share > 0] == [3, 6]


def test_several_steps_in_one_execution():
    results = []
    for steps in (1, 4):
        model = problems.compiled(problems.make("rigl"), steps_per_execution=steps)
        problems.fit(model, epochs=4)
        results.append(problems.weights_of(model))
    problems.assert_same(*results)


def test_pruning_that_a_void_step_missed_is_made_up_for():
    model = problems.compiled(
        GradualMagnitude("sgd", sparsity_schedule=schedules.OneShot(2))
    )
    x, y = problems.data()
    sparsity = [
        model.train_on_batch(x, y * factor, return_dict=True)["sparsity"]
        for factor in (1.0, np.nan, np.nan, 1.0)
    ]
    assert sparsity == [0.0, 0.0, 0.0, 0.5]


def test_pruning_begins_dense_and_counts_for_each_layer():
    dense = keras.Sequential(
        [
            keras.Input((problems.INPUTS,)),
            keras.layers.Dense(32, name="wide"),
            keras.layers.Dense(1, name="out"),
        ]
    )
    model = keras_es.sparsify(dense, 0.8, allocation="erk")
    optimizer = GradualMagnitude(
        "sgd", sparsity_schedule=schedules.PolynomialSparsity(4, update_every=1)
    )
    problems.compiled(optimizer, model)
    optimizer.build(model.trainable_variables)
    masks = keras_es.masked_weights(model)
    assert all(m.kernel_mask.numpy().all() for m in masks)
    assert keras_es.sparsity_report(model).sparsity == 0.0
    problems.fit(model, epochs=2)
    assert [m.kernel_mask.numpy().sum() for m in masks] == [m.nnz for m in masks]
    assert masks[0].sparsity != masks[1].sparsity


def test_resume_in_the_midst_of_pruning(tmp_path):
    whole, first = (
        problems.compiled(problems.make("gradual_magnitude")) for _ in range(2)
    )
    problems.fit(whole, epochs=2)
    problems.fit(first, epochs=1)
    assert 0.0 < keras_es.sparsity_report(first).sparsity < 0.5
    first.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    problems.fit(loaded, epochs=1)
    problems.assert_same(problems.weights_of(whole), problems.weights_of(loaded))


def test_rigl_grows_where_the_gradient_is_largest():
    # Only the first input matters, and its weight is masked out at first.
    layer = keras_es.layers.MaskedDense(
        1, use_bias=False, sparsity=0.75, pattern=patterns.Block(2, 1), mask_seed=0
    )
    model = keras_es.ESSequential([keras.Input((8,)), layer])
    (masked,) = layer.masked_weights
    masked.mask_scores.assign([[-1.0], [0.0], [1.0], [0.5]])
    masked.kernel_mask.assign(masked.expand(masked.decode(masked.mask_scores.value)))
    schedule = schedules.ConstantUpdates(0.9, update_every=1)
    problems.compiled(RigL("sgd", update_schedule=schedule), model, loss="mse")
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    model.train_on_batch(x, 5.0 * x[:, :1])
    assert np.flatnonzero(masked.kernel_mask.numpy()).tolist() == [0, 1]


def test_a_schedule_of_ones_own_may_say_true():
    class Always(schedules.UpdateSchedule):
        def is_due(self, step):
            return True

        def __call__(self, step):
            return 0.5

    optimizer = RigL("sgd", update_schedule=Always())
    optimizer.build([keras.Variable(np.ones(2))])
    # Not a bool of Python, which `tf.cond` of a step would refuse.
    assert keras.ops.is_tensor(optimizer.move_is_due())
