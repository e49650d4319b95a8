"""Schedules against their formulas, their ends, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import patterns
from keras_es.optimizers import GradualMagnitude, OpenES, RigL
from keras_es.schedules import (
    ConstantSparsity,
    ConstantUpdates,
    CosineUpdates,
    OneShot,
    PolynomialSparsity,
)

ALL = [
    ConstantSparsity(),
    OneShot(5, initial_sparsity=0.2),
    PolynomialSparsity(9, 2, initial_sparsity=0.1, power=2.0, update_every=3),
    ConstantUpdates(0.2, update_every=3, begin_step=1, end_step=9),
    CosineUpdates(9, 0.4, update_every=2, begin_step=1),
]


def due_steps(schedule, steps=14):
    return [step for step in range(steps) if bool(schedule.is_due(step))]


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_config_round_trip(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert due_steps(again) == due_steps(schedule)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_tensors_do_as_numbers(schedule, jit_compile):
    arguments = [0.9] if hasattr(schedule, "remaining") else []

    @tf.function(jit_compile=jit_compile, autograph=False)
    def traced(step):
        return schedule(step, *arguments), schedule.is_due(step)

    for step in range(12):
        value, due = traced(tf.constant(step, tf.int64))
        assert value.dtype == tf.float64
        np.testing.assert_allclose(value, float(schedule(step, *arguments)), 1e-12)
        assert bool(due) == bool(schedule.is_due(step))


def test_polynomial():
    schedule = PolynomialSparsity(9, 2, initial_sparsity=0.1, update_every=3)
    for step in range(14):
        left = min(max(1 - (step - 2) / 7, 0.0), 1.0)
        wanted = 0.9 + (0.1 - 0.9) * left**3
        assert float(schedule(step, 0.9)) == pytest.approx(wanted, rel=1e-12)
    assert float(schedule.remaining(9)) == float(schedule.remaining(10)) == 0.0
    assert float(schedule.remaining(0)) == float(schedule.remaining(2)) == 1.0
    assert due_steps(schedule) == [5, 8, 9]


def test_one_shot_and_constant():
    assert due_steps(OneShot(5)) == [5]
    assert [float(OneShot(5)(step, 0.9)) for step in (4, 5)] == [0.0, 0.9]
    assert due_steps(ConstantSparsity()) == []
    assert float(ConstantSparsity()(0, 0.9)) == 0.9


def test_cosine():
    schedule = CosineUpdates(10, 0.3, update_every=2)
    for step in range(11):
        wanted = 0.15 * (1 + np.cos(np.pi * step / 10))
        assert float(schedule(step)) == pytest.approx(wanted, abs=1e-12)
    assert float(schedule(20)) == 0.0
    assert due_steps(schedule) == [2, 4, 6, 8]


def test_constant_updates_have_no_end_by_themselves():
    schedule = ConstantUpdates(0.3, update_every=4, begin_step=1)
    assert due_steps(schedule) == [5, 9, 13]
    assert float(schedule(10**9)) == 0.3
    assert due_steps(ConstantUpdates(update_every=4, end_step=8)) == [4]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: OneShot(0), "`end_step` .*of at least 1.*Received: end_step=0"),
        (lambda: OneShot(True), "`end_step`.*Received: end_step=True"),
        (lambda: OneShot(2.5), "`end_step`.*Received: end_step=2.5"),
        (lambda: PolynomialSparsity(5, 5), "larger than `begin_step`.*end_step=5"),
        (lambda: PolynomialSparsity(5, -1), "`begin_step`.*begin_step=-1"),
        (
            lambda: PolynomialSparsity(5, initial_sparsity=1.0),
            r"`initial_sparsity` .*\[0, 1\).*initial_sparsity=1.0",
        ),
        (lambda: PolynomialSparsity(5, power=0.5), "`power`.*power=0.5"),
        (lambda: PolynomialSparsity(5, update_every=0), "`update_every`"),
        (lambda: ConstantUpdates(1.0), "`drop_fraction`.*drop_fraction=1.0"),
        (lambda: ConstantUpdates(end_step=3, begin_step=4), "larger than `begin_step`"),
        (lambda: CosineUpdates(None), "`end_step`.*Received: end_step=None"),
        (lambda: CosineUpdates(9, "x"), "`drop_fraction`.*drop_fraction='x'"),
    ],
)
def test_what_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("odd", [True, np.nan, np.inf, "3", None, 2.5, [3], -1])
def test_odd_numbers_are_refused(odd):
    calls = [
        lambda: OneShot(odd),
        lambda: OneShot(9, initial_sparsity=odd),
        lambda: PolynomialSparsity(9, power=odd if odd != 2.5 else np.inf),
        lambda: PolynomialSparsity(9, update_every=odd),
        lambda: ConstantUpdates(drop_fraction=odd),
        lambda: CosineUpdates(odd),
        lambda: CosineUpdates(9, begin_step=odd),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="must be .*Received: "):
            call()


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "Nope", "config": {}},
        keras.saving.serialize_keras_object(OneShot(5)) | {"config": {"end_step": 0}},
    ],
    ids=["unknown", "wrong"],
)
def test_configs_of_which_nothing_can_be_made_name_the_argument(config):
    """Of schedules, and of what else is given by its config."""
    calls = {
        "update_schedule": lambda: RigL("sgd", update_schedule=config),
        "sparsity_schedule": lambda: GradualMagnitude("sgd", sparsity_schedule=config),
        "pattern": lambda: patterns.get(config),
        "fitness_shaping": lambda: OpenES("sgd", fitness_shaping=config),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"`{name}` must be .*none could be made"):
            call()


def test_scalars_of_numpy_are_numbers():
    schedule = PolynomialSparsity(
        np.int64(9), np.int32(1), np.float32(0.5), np.float16(2), np.uint8(3)
    )
    plain = PolynomialSparsity(9, 1, 0.5, 2.0, 3)
    assert schedule.get_config() == plain.get_config()
    assert {type(v) for v in schedule.get_config().values()} == {int, float}
    updates = ConstantUpdates(0.5, 2, 0, np.int64(8))
    assert type(updates.end_step) is int


def test_numbers_beyond_any_float_are_refused():
    with pytest.raises(ValueError, match="`power` must be a number"):
        PolynomialSparsity(9, power=10**400)
