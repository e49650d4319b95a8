"""Frozen layers keep weights and masks; compiling again keeps what was learned."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.optimizers import (
    SNES,
    Falling,
    FiniteDifference,
    ForwardGradient,
    GradualMagnitude,
    GuidedES,
    Static,
)
from keras_es.schedules import PolynomialSparsity
from tests.training.common import compiled, data, mlp, sgd, sparse_mlp


def state_of(layer):
    return [v.numpy() for v in layer.weights]


def deep(sparsity=0.5):
    return sparse_mlp(keras.layers.Dense(8, activation="tanh"), sparsity=sparsity)


def test_frozen_layer_keeps_weights_and_masks():
    model = deep()
    model.layers[0].trainable = False
    compiled(model, SNES(sgd(), population_size=4))
    frozen, moving = state_of(model.layers[0]), state_of(model.layers[1])
    model.fit(*data(), batch_size=8, verbose=0)
    for before, after in zip(frozen, state_of(model.layers[0]), strict=True):
        np.testing.assert_array_equal(before, after)
    masked = model.layers[1].masked_weights[0]
    assert not np.array_equal(moving[0], masked.kernel)
    assert len(model.optimizer.masked_weights) == 2


@pytest.mark.parametrize("optimizer", [SNES, Static])
def test_frozen_layer_acts_through_its_mask_while_training(optimizer):
    # Its latent weights under the mask must not show: the same model with zeros
    # baked into the frozen layer trains in the same way.
    x, y = data()
    losses = []
    for bake in (False, True):
        keras.utils.set_random_seed(0)
        model = deep(sparsity=0.75)
        if bake:
            masked = model.layers[0].masked_weights[0]
            masked.kernel.assign(masked.effective_value())
        model.layers[0].trainable = False
        compiled(model, optimizer(sgd()))
        losses.append(model.fit(x, y, batch_size=8, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_model_that_is_frozen_but_for_a_dense_head():
    model = keras_es.sparsify(mlp(), 0.5, exclude=["dense_1"])
    model.layers[0].trainable = False
    compiled(model)
    before = state_of(model.layers[1])
    logs = model.train_on_batch(*data(), return_dict=True)
    # What does not move is as sparse as it was.
    assert logs["sparsity"] == 0.5 and logs["mask_flip_ratio"] == 0.0
    assert not np.array_equal(before[0], model.layers[1].kernel)


def test_frozen_batch_normalization_keeps_its_statistics():
    model = sparse_mlp(keras.layers.BatchNormalization())
    model.layers[1].trainable = False
    compiled(model)
    before = state_of(model.layers[1])
    model.train_on_batch(*data())
    for old, new in zip(before, state_of(model.layers[1]), strict=True):
        np.testing.assert_array_equal(old, new)


def test_freezing_a_compiled_model_takes_effect_at_the_next_compile():
    model = compiled(deep())
    model.train_on_batch(*data())
    model.layers[0].trainable = False
    compiled(model, SNES(sgd(), population_size=4))
    before = state_of(model.layers[0])
    model.train_on_batch(*data())
    for old, new in zip(before, state_of(model.layers[0]), strict=True):
        np.testing.assert_array_equal(old, new)


def test_freezing_after_the_optimizer_was_built_is_refused():
    model = compiled(deep())
    model.optimizer.build(model.trainable_variables)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="compile.*again.*Received: .*dense"):
        model.train_on_batch(*data())


def test_compiling_again_keeps_weights_scores_and_masks():
    x, y = data()
    model = compiled(sparse_mlp())
    model.fit(x, y, batch_size=8, verbose=0)
    before = [v.numpy() for v in model.weights]
    compiled(model, SNES("adam", population_size=2), metrics=["accuracy"])
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, variable)
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert "accuracy" in history
    assert int(model.optimizer.steps_done()) == 4


def test_plain_optimizer_trains_weights_under_fixed_masks():
    x, y = data()
    model = compiled(sparse_mlp(), sgd(), metrics=["accuracy"])
    masks = [m.kernel_mask.numpy() for m in keras_es.masked_weights(model)]
    history = model.fit(x, y, batch_size=8, epochs=5, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert history["loss"][-1] < history["loss"][0]
    for masked, mask in zip(keras_es.masked_weights(model), masks, strict=True):
        np.testing.assert_array_equal(masked.kernel_mask, mask)
        assert not np.asarray(masked.effective_value())[~mask].any()


def test_plain_optimizer_and_static_masks_train_alike():
    # SGD without momentum: static masks keep what is masked out, which has no gradient.
    x, y = data()
    histories = []
    for optimizer in ("sgd", Static("sgd")):
        keras.utils.set_random_seed(0)
        model = compiled(sparse_mlp(), optimizer)
        histories.append(model.fit(x, y, 8, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-6)


def test_mask_optimizer_on_a_plain_model_is_refused():
    model = compiled(mlp(), SNES("sgd"))
    with pytest.raises(RuntimeError, match="ESMixin.*Received"):
        model.train_on_batch(*data())


def all_frozen(model):
    model.trainable = False
    return model


PURE = [
    lambda: keras_es.optimizers.OpenES(None, 4),
    lambda: keras_es.optimizers.SepCMAES(None, 4),
    lambda: keras_es.optimizers.GeneticAlgorithm(None),
    lambda: keras_es.optimizers.Alopex(None),
]


@pytest.mark.parametrize("optimizer", PURE)
def test_pure_evolution_of_nothing_is_refused(optimizer):
    for model in (sparse_mlp(), keras_es.es_model(mlp())):
        compiled(all_frozen(model), optimizer())
        with pytest.raises(ValueError, match="nothing to evolve.*Received: model="):
            model.train_on_batch(*data())


@pytest.mark.parametrize(
    "optimizer",
    [
        SNES,
        Static,
        GuidedES,
        lambda inner: GradualMagnitude(inner, end_step=4, masked_out="learn"),
        lambda inner: SNES(inner, density=Falling(PolynomialSparsity(4))),
        ForwardGradient,
        lambda inner: ForwardGradient(inner, perturb="outputs"),
        FiniteDifference,
    ],
)
def test_a_model_that_is_all_frozen_is_evaluated_with_a_warning_as_in_keras(optimizer):
    model = compiled(all_frozen(sparse_mlp()), optimizer("sgd"))
    before = state_of(model)
    with pytest.warns(UserWarning, match="not have any trainable weights.*Received"):
        logs = model.train_on_batch(*data(), return_dict=True)
    for old, new in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(old, new)
    assert logs["sparsity"] == keras_es.sparsity_report(model).sparsity == 0.5


@pytest.mark.parametrize("frozen_first", [True, False])
def test_pure_evolution_of_weights_that_froze_or_thawed_is_refused(frozen_first):
    model = keras_es.es_model(mlp())
    model.layers[0].trainable = not frozen_first
    compiled(model, keras_es.optimizers.OpenES(None, 4))
    model.optimizer.build(model.trainable_variables)
    model.layers[0].trainable = frozen_first
    with pytest.raises(ValueError, match="compile.*again.*Received: .*dense"):
        model.train_on_batch(*data())
