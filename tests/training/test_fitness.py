"""Fitness of the user's own: another measure for masks than the loss of weights."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.optimizers import SNES, OpenES, Turns
from keras_es.populations.evaluation import weighted_fitness
from tests.training.common import compiled, data, sparse_mlp


@keras.saving.register_keras_serializable("tests")
def error_rate(y, y_pred):
    """0/1 error: no gradient leads there."""
    wrong = keras.ops.argmax(y_pred, axis=-1) != keras.ops.cast(y, "int32")
    return keras.ops.cast(wrong, "float32")


def member_errors(model, x, y, weight):
    """Return the weighted error of each member, by calling the stripped model."""
    errors = []
    for pair in range(model.optimizer.pairs):
        for units in model.optimizer.member_masks(pair):
            member = keras.models.clone_model(keras_es.strip_masks(model))
            plain = [v.numpy() for v in model.trainable_variables]
            for at, variable in enumerate(model.trainable_variables):
                for masked, unit in zip(model.optimizer.masked_weights, units):
                    if masked.kernel is variable:
                        plain[at] = plain[at] * np.array(masked.expand(unit))
            member.set_weights(plain)
            wrong = member.predict(x, verbose=0).argmax(axis=-1) != y
            errors.append((wrong * weight).mean())
    return errors


@pytest.mark.parametrize("weighted", [False, True])
def test_members_are_ranked_by_the_fitness(weighted):
    x, y = data()
    weight = np.linspace(0, 2, 32).astype("float32") if weighted else np.ones(32)
    optimizer = SNES("sgd", 4, "full", fitness=error_rate)
    model = compiled(sparse_mlp(), optimizer)
    optimizer.build(model.trainable_variables)
    want = member_errors(model, x, y, weight)
    logs = model.train_on_batch(x, y, weight if weighted else None, return_dict=True)
    assert logs["population_best"] == pytest.approx(min(want), abs=1e-6)
    assert logs["population_loss"] == pytest.approx(np.mean(want), abs=1e-6)
    # The loss of the logs is the one that trains the weights.
    assert logs["loss"] != pytest.approx(np.mean(want), abs=1e-3)


@pytest.mark.parametrize(
    ("fitness", "weights"), [((2, 3), (2, 3)), ((2, 3), (2, 1)), ((2, 3, 2), (2, 3)),
                             ((2, 3), (2,)), ((2,), (2, 1)), ((2, 3), (2, 3, 1))]
)  # fmt: skip
def test_weights_of_time_steps(fitness, weights):
    values = np.arange(1.0, 1.0 + np.prod(fitness)).reshape(fitness)
    w = np.arange(1.0, 1.0 + np.prod(weights)).reshape(weights)
    found = weighted_fitness(lambda y, y_pred: y_pred, None, values, w)
    w = w.reshape((*weights, 1, 1)[: len(fitness)])
    np.testing.assert_allclose(found, values * w)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((2, 3)), r"a value for each weight.*\(2, 3\).*shape=\(2,\)"),
        ({"a": np.ones(2), "b": np.ones(2)}, r"one array.*{'a': \(2,\), 'b': \(2,\)}"),
    ],
)
def test_weights_that_no_fitness_fits_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_fitness(lambda y, y_pred: y_pred, None, np.ones(2), weights)


def test_weights_train_on_the_loss():
    x, y = data()
    gradients = []
    for fitness in (None, error_rate):
        model = compiled(sparse_mlp(), OpenES("sgd", 2, "full", fitness=fitness))
        if gradients:
            model.set_weights(gradients[0])
        else:
            gradients.append(model.get_weights())
        model.train_on_batch(x, y)
        gradients.append([v.numpy() for v in model.trainable_variables])
    for a, b in zip(*gradients[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_follow_the_fitness():
    # The fitness asks for small outputs whatever the loss; weights stand still.
    @keras.saving.register_keras_serializable("tests")
    def size(y, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred), axis=-1)

    x, y = data()
    optimizer = SNES(keras.optimizers.SGD(0.0), 8, fitness=size, turns=Turns(8, 1))
    model = compiled(sparse_mlp(), optimizer)
    before = np.square(model.predict(x, verbose=0)).mean()
    model.fit(x, y, batch_size=32, epochs=60, verbose=0)
    assert np.square(model.predict(x, verbose=0)).mean() < 0.7 * before


def test_name_of_a_loss_is_a_fitness():
    optimizer = SNES("sgd", 2, fitness="sparse_categorical_crossentropy")
    model = compiled(sparse_mlp(), optimizer)
    logs = model.train_on_batch(*data(), return_dict=True)
    assert logs["nonfinite_members"] == 0


def test_fitness_that_is_not_finite_fails_the_member():
    model = compiled(
        sparse_mlp(), SNES("sgd", 2, fitness=lambda y, p: p[:, 0] * np.nan)
    )
    logs = model.train_on_batch(*data(), return_dict=True)
    assert logs["nonfinite_members"] == 2 and logs["skipped_steps"] == 1
