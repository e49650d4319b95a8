"""What one replica does in a step of plain gradients, without the others."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import _compat
from keras_es.distribution.trainer import _PlainStep


def model_of(*layers):
    model = keras_es.ESSequential([keras.Input((4, 3)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    return model


def test_no_examples_leave_statistics_and_add_nothing():
    model = model_of(
        keras.layers.Dense(2, activity_regularizer="l2"),
        keras.layers.BatchNormalization(),
    )
    step = _PlainStep(model, np.ones((0, 4, 3), "float32"), np.ones((0, 4, 2)), None)
    loss, _, gradients, state, _ = step.run(False)
    assert len(gradients) == 4 and len(state) == 2
    for value in (loss, *gradients):
        np.testing.assert_array_equal(value, np.zeros(value.shape))
    for variable, value in zip(step.touched, state):
        np.testing.assert_array_equal(value, variable)
    # NaN of examples is no less than that.
    step = _PlainStep(model, np.full((1, 4, 3), np.nan), np.ones((1, 4, 2)), None)
    assert np.isnan(step.run(False)[0])


@pytest.mark.parametrize("jit", [False, True])
def test_metrics_are_told_which_time_steps_count(jit):
    model = model_of(keras.layers.Masking(), keras.layers.Dense(2))
    x = np.ones((2, 4, 3), "float32")
    x[:, 2:] = 0.0
    _, y_pred, *_ = _PlainStep(model, x, np.ones((2, 4, 2)), None).run(jit)
    np.testing.assert_array_equal(_compat.get_keras_mask(y_pred), x[..., 0] > 0.0)
