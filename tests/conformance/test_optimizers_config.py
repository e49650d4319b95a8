"""An optimizer made from its config equals the first, however it was given."""

import inspect

import keras
import pytest

from keras_es import optimizers
from tests.reference import problems
from tests.reference.problems import POPULATIONS, make

NAMES = sorted(optimizers.OPTIMIZERS)


def again(optimizer):
    """Through Keras' own serialization, as a saved model does it."""
    config = keras.saving.serialize_keras_object(optimizer)
    return keras.saving.deserialize_keras_object(config)


def inner_forms():
    adam = keras.optimizers.Adam(0.02, clipnorm=1.0)
    return {
        "string": "adam",
        "dict": keras.optimizers.serialize(adam),
        "instance": adam,
        "schedule": keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(0.1, 10), momentum=0.9
        ),
        "loss scale": keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.1), initial_scale=8.0
        ),
    }


@pytest.mark.parametrize("form", inner_forms())
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_with_every_form_of_inner_optimizer(name, form):
    inner = inner_forms()[form]
    first = make(name, inner, seed=5, name="mine")
    second = again(first)
    assert type(second) is type(first)
    assert second.get_config() == first.get_config()
    assert second.seed == 5 and second.name == "mine"
    assert type(second.inner_optimizer) is type(first.inner_optimizer)
    inner_config = first.inner_optimizer.get_config()
    assert second.inner_optimizer.get_config() == inner_config


@pytest.mark.parametrize("name", NAMES)
def test_config_holds_every_argument_of_the_constructor(name):
    optimizer = make(name)
    wanted = inspect.signature(type(optimizer)).parameters
    assert set(optimizer.get_config()) == set(wanted)
    kinds = {p.kind for p in wanted.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}


@keras.saving.register_keras_serializable(package="test_config")
def wrong_side(y, y_pred):
    return keras.ops.cast((y_pred > 0.5) != (y > 0.5), "float32")


@keras.saving.register_keras_serializable(package="test_config")
def minus(fitness):
    return -fitness


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize(
    "fitness",
    [wrong_side, "mean_squared_error", None],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_round_trip_of_the_fitness(name, fitness):
    first = make(name, fitness=fitness, batch_mode="full", population_size=6)
    second = again(first)
    assert second.fitness is first.fitness
    assert fitness is None or callable(second.fitness)
    assert (second.batch_mode, second.population_size) == ("full", 6)


@pytest.mark.parametrize("name", [n for n in POPULATIONS if n != "guided_nes"])
@pytest.mark.parametrize(
    "shaping",
    ["raw", "nes", minus],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_round_trip_of_the_shaping(name, shaping):
    first = make(name, fitness_shaping=shaping)
    assert again(first).fitness_shaping is first.fitness_shaping


@pytest.mark.parametrize("name", [n for n in POPULATIONS if n != "snes"])
def test_round_trip_of_a_schedule_of_sigma(name):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.5, 100, 0.01)
    second = again(make(name, sigma=schedule))
    assert second.sigma.get_config() == schedule.get_config()


@pytest.mark.parametrize("name", ["set", "rigl", "gradual_magnitude"])
def test_round_trip_of_the_schedules_of_masks(name):
    cls = optimizers.get(name)
    (kind,) = problems.SCHEDULES[name]
    short = again(cls("adam", end_step=700))
    assert short.end_step == 700 and short.get_config()[kind] is None
    assert getattr(short, kind).end_step == 700
    full = again(problems.make(name))
    assert full.end_step is None
    given = problems.SCHEDULES[name][kind]
    assert type(getattr(full, kind)) is type(given)
    assert getattr(full, kind).get_config() == given.get_config()


@pytest.mark.parametrize("rate", ["mean_learning_rate", "std_learning_rate"])
def test_round_trip_of_the_schedules_of_snes(rate):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 100, 0.9)
    second = again(make("snes", **{rate: schedule}))
    assert getattr(second, rate).get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "name", ["open_es", "bernoulli_nes", "guided_nes", "straight_through"]
)
def test_round_trip_of_the_optimizer_of_scores(name):
    scores = keras.optimizers.SGD(0.3, momentum=0.5)
    for form in (scores, keras.optimizers.serialize(scores)):
        second = again(make(name, score_optimizer=form))
        assert second.score_optimizer.get_config() == scores.get_config()
    named = again(make(name, score_optimizer="rmsprop"))
    assert isinstance(named.score_optimizer, keras.optimizers.RMSprop)
