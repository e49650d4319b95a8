"""Clipping, decay, averages, schedules and callbacks of the inner optimizer work."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers
from tests.marks import slow_unless
from tests.reference import problems

# All of it is of the base class: in the fast tests one that evaluates members, one
# whose masks move by a schedule, and one whose slots start anew.
KEPT = ["guided_nes", "rigl", "straight_through"]
REST = sorted({*optimizers.OPTIMIZERS} - {*KEPT})
NAMES = pytest.mark.parametrize("name", slow_unless(KEPT, KEPT + REST, REST))


def step(name, inner, sparsity=0.5):
    """Return the kernel before and after one step, the model and the step's masks."""
    optimizer = problems.make_resting(name, inner, masked_out="rest")
    model = problems.compiled(optimizer, problems.make_model(sparsity))
    (masked,) = keras_es.masked_weights(model)
    before = masked.kernel.numpy()
    model.train_on_batch(*problems.data())
    return before, masked.kernel.numpy(), model


@pytest.mark.parametrize(
    ("name", "clip"),
    slow_unless(
        [*((name, "global_clipnorm") for name in KEPT), ("snes", "clipvalue")],
        [
            *((name, "global_clipnorm") for name in sorted(optimizers.OPTIMIZERS)),
            ("snes", "clipnorm"),
            ("snes", "clipvalue"),
        ],
    ),
)
def test_clipping_bounds_the_step(name, clip):
    before, after, _ = step(name, keras.optimizers.SGD(1.0, **{clip: 1e-3}))
    change = np.abs(after - before)
    assert 0 < change.max() <= 1.01e-3
    if clip != "clipvalue":
        assert np.linalg.norm(change) <= 1.01e-3


@NAMES
def test_weight_decay_shrinks_what_was_used(name):
    # A rate of 0 for the gradient would be 0 for the decay too: clip it instead.
    inner = keras.optimizers.SGD(1.0, weight_decay=0.1, clipvalue=1e-9)
    before, after, _ = step(name, inner, sparsity=0.8)
    used = after != before
    assert 0 < used.sum() < used.size
    np.testing.assert_allclose(after[used], 0.9 * before[used], rtol=1e-5)


@NAMES
def test_averages_replace_the_weights_at_the_end(name):
    inner = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model = problems.compiled(problems.make(name, inner))
    bias = model.layers[-1].bias
    seen = []
    at_end = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(bias.numpy())
    )
    problems.fit(model, epochs=2, callbacks=[at_end])
    average = seen[0]
    for value in seen[1:]:
        average = 0.9 * average + 0.1 * value
    np.testing.assert_allclose(bias.numpy(), average, rtol=1e-5)


@NAMES
def test_schedule_counts_the_steps(name):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.0, 0.5])
    inner = keras.optimizers.SGD(schedule)
    model = problems.compiled(problems.make(name, inner))
    bias = model.layers[-1].bias
    values = [bias.numpy()]
    for _ in range(4):
        model.train_on_batch(*problems.data())
        values.append(bias.numpy())
    moved = [bool((a != b).any()) for a, b in zip(values, values[1:])]
    assert moved == [False, False, False, True]
    assert int(model.optimizer.iterations.value) == 4
    with pytest.raises(TypeError, match="learning rate is not settable"):
        model.optimizer.learning_rate = 0.1


@NAMES
def test_callbacks_set_the_learning_rate(name):
    model = problems.compiled(problems.make(name, keras.optimizers.SGD(0.8)))
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.5, patience=1, min_delta=1e9
    )
    history = problems.fit(model, epochs=4, callbacks=[plateau]).history
    np.testing.assert_allclose(history["learning_rate"], [0.8, 0.8, 0.4, 0.2])
    inner = model.optimizer.inner_optimizer
    np.testing.assert_allclose(float(inner.learning_rate.value), 0.1)
