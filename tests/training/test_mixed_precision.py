"""float16: the scale of the loss goes around the optimizer of the weights."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import schedules
from keras_es.optimizers import OPTIMIZERS, SNES
from tests.marks import slow, slow_unless
from tests.reference.problems import SCHEDULES
from tests.training.common import compiled, data, mlp, sgd, sparse_mlp

LossScale = keras.optimizers.LossScaleOptimizer


@pytest.fixture
def float16():
    keras.config.set_dtype_policy("mixed_float16")


@pytest.mark.parametrize(
    "method", slow_unless(["guided_nes", "rigl", "static"], OPTIMIZERS)
)
def test_scale_goes_around_the_inner_optimizer(method, float16):
    optimizer = OPTIMIZERS[method](sgd(), **SCHEDULES.get(method, {}))
    model = compiled(sparse_mlp(), optimizer, metrics=["accuracy"])
    assert isinstance(model.optimizer, OPTIMIZERS[method])
    assert isinstance(model.optimizer.inner_optimizer, LossScale)
    before = model.layers[0].kernel.numpy()
    history = model.fit(*data(), batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert not np.array_equal(model.layers[0].kernel, before)
    assert float(model.optimizer.inner_optimizer.dynamic_scale) == 2.0**15


def test_trains_as_in_float32(float16):
    x, y = data()
    losses = []
    for policy in ("mixed_float16", "float32"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        model = compiled(sparse_mlp(), SNES(sgd(), population_size=4))
        losses.append(model.fit(x, y, 8, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-2)


def test_no_scale_if_it_is_not_wanted(float16):
    model = compiled(sparse_mlp(), SNES(sgd()), auto_scale_loss=False)
    assert not isinstance(model.optimizer.inner_optimizer, LossScale)


def test_a_scale_of_the_users_own_is_kept(float16):
    scaled = LossScale(sgd(), initial_scale=8.0, dynamic_growth_steps=2)
    model = compiled(sparse_mlp(), SNES(scaled))
    assert model.optimizer.inner_optimizer is scaled
    model.fit(*data(), batch_size=8, verbose=0)
    assert float(scaled.dynamic_scale) == 32.0  # four finite steps


def test_scale_outside_is_refused(float16):
    with pytest.raises(ValueError, match=r"SNES\(keras.optimizers.LossScale.*Received"):
        compiled(sparse_mlp(), LossScale(SNES(sgd())))


@pytest.mark.parametrize(
    "method",
    [
        "guided_nes",
        "rigl",
        "static",
        slow("snes"),
        slow("straight_through"),
        slow("gradual_magnitude"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_scale_drops_on_overflow_and_the_search_stays_finite(method, float16):
    scaled = LossScale(sgd(), initial_scale=2.0**40)
    kind = {"gradual_magnitude": "sparsity_schedule", "rigl": "update_schedule"}
    # Masks of the first step rest.
    later = {
        "update_schedule": schedules.ConstantUpdates(0.5, update_every=2),
        "sparsity_schedule": schedules.OneShot(2),
    }
    chosen = {k: v for k, v in later.items() if k == kind.get(method)}
    model = compiled(sparse_mlp(), OPTIMIZERS[method](scaled, **chosen))
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(*data())
    assert float(scaled.dynamic_scale) == 2.0**39
    # The loss is finite: the step of the weights is skipped, no member has failed.
    assert int(model.optimizer.nonfinite_members.value) == 0
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable)
    for _ in range(30):
        model.train_on_batch(*data())
    assert 1.0 < float(scaled.dynamic_scale) < 2.0**30
    assert not np.array_equal(before[0], model.trainable_variables[0])
    for variable in model.weights + model.optimizer.variables:
        assert np.isfinite(np.asarray(variable, "float32")).all(), variable.path


def test_scale_survives_saving(float16, tmp_path):
    x, y = data()
    scaled = LossScale(sgd(), initial_scale=8.0, dynamic_growth_steps=3)
    model = compiled(sparse_mlp(), SNES(scaled, population_size=4))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inner = loaded.optimizer.inner_optimizer
    assert isinstance(inner, LossScale)
    assert not isinstance(inner.inner_optimizer, LossScale)
    assert float(inner.dynamic_scale) == 16.0 and int(inner.step_counter) == 1
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert float(inner.dynamic_scale) == 32.0
    for want, got in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_masks_scores_and_latent_weights_are_full(policy):
    keras.config.set_dtype_policy(policy)
    model = keras_es.sparsify(mlp(), 0.5)
    for masked in keras_es.masked_weights(model):
        assert masked.kernel.dtype == "float32"
        assert masked.mask_scores.dtype == "float32"
        assert masked.kernel_mask.dtype == "bool"
    assert model(data()[0]).dtype == policy.removeprefix("mixed_")
