"""How optimizers are made up: few ancestors, each argument used or refused."""

import inspect

import keras
import numpy as np
import pytest

from keras_es import noise, optimizers, schedules
from keras_es.optimizers import Chunks, Falling, Sampled, Turns

CLASSES = {cls.__name__: cls for cls in (*optimizers.OPTIMIZERS.values(),
                                          *optimizers.PURE.values())}  # fmt: skip
EVERY = pytest.mark.parametrize("name", sorted(CLASSES))


def forms(cls):
    """Makers (**kwargs) -> optimizer of what a class can be."""

    def hybrid(**kwargs):
        wanted = "end_step" in inspect.signature(cls).parameters
        if wanted and not {"update_schedule", "sparsity_schedule"} & set(kwargs):
            kwargs = {"end_step": 10, **kwargs}
        return cls("sgd", **kwargs)

    if cls.trains_by_gradients:
        yield hybrid
    if cls.evolves_weights:
        yield lambda **kwargs: cls(None, **kwargs)


@EVERY
def test_there_are_at_most_four_classes_down_from_that_of_keras(name):
    mro = CLASSES[name].__mro__
    assert mro.index(keras.optimizers.Optimizer) < 4


@pytest.mark.parametrize("name", ["SNES", "OpenES"])
def test_arguments_are_at_most_fifteen(name):
    assert len(inspect.signature(CLASSES[name]).parameters) <= 15


VALUES = {
    "population_size": 40,
    "batch_mode": "full",
    "fitness": "mse",
    "fitness_shaping": "raw",
    "sigma": 0.123,
    "mean_learning_rate": 0.123,
    "std_learning_rate": 0.123,
    "max_speed": 0.123,
    "momentum": 0.123,
    "rate_scale": 0.123,
    "step_size": 0.123,
    "parents": 21,
    "elite_candidates": 3,
    "score_optimizer": "rmsprop",
    "mean_optimizer": "rmsprop",
    "noise": noise.LowRank(2),
    "masked_out": "learn",
    "turns": Chunks(2),
    "density": Falling(schedules.OneShot(3)),
    "semi_updates": False,
    "correction": 0.5,
    "guidance_momentum": 0.5,
    "update_schedule": schedules.ConstantUpdates(0.2),
    "sparsity_schedule": schedules.OneShot(3),
    "seed": 5,
    "name": "mine",
    "end_step": 11,
}
OTHERS = {"turns": Turns(2, 2), "batch_mode": Sampled(3)}


@EVERY
def test_every_argument_is_kept_or_refused_with_a_reason(name):
    """Of all arguments of all classes: nothing vanishes on the way to the config."""
    for make in forms(CLASSES[name]):
        plain = make().get_config()
        for values in (VALUES, OTHERS):
            for key, value in values.items():
                try:
                    config = make(**{key: value}).get_config()
                except ValueError as error:
                    assert "Received: " in str(error), (key, error)
                    continue
                assert key in config, key
                differs = config[key] != plain[key]
                assert differs or config[key] == value, key
                again = CLASSES[name].from_config(config)
                assert again.get_config() == config


@EVERY
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "no", 1 + 2j, [1.0], {}])
def test_no_argument_takes_what_is_no_number_or_name(name, wrong):
    for make in forms(CLASSES[name]):
        for key in VALUES:
            if wrong == "no" and key == "name":
                continue
            with pytest.raises((ValueError, TypeError), match="Received"):
                make(**{key: wrong})


@EVERY
def test_numbers_of_numpy_are_taken(name):
    for make in forms(CLASSES[name]):
        parameters = inspect.signature(CLASSES[name]).parameters
        if "population_size" in parameters:
            assert make(population_size=np.int64(40)).population_size == 40
        if "sigma" in parameters:
            assert make(sigma=np.float32(0.5)).sigma == 0.5
        assert make(seed=np.int32(3)).seed == 3
        with pytest.raises(ValueError, match="`seed` must be an integer.*seed=None"):
            make(seed=None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.SNES("sgd", 2),
        lambda: optimizers.GuidedES("adam"),
        lambda: optimizers.ForwardGradient("sgd"),
    ],
    ids=["snes", "guided_es", "forward_gradient"],
)
def test_one_object_in_two_models_says_so(make):
    from tests.reference import problems

    optimizer = make()
    problems.fit(problems.compiled(optimizer))
    with pytest.raises(ValueError, match="holds the state of another model.*Received"):
        problems.fit(problems.compiled(optimizer))


def test_ask_before_build_and_tell_of_no_numbers():
    strategy = optimizers.SNES(None, 4)
    with pytest.raises(ValueError, match=r"build\(variables\).*Received"):
        strategy.ask()
    strategy.build([keras.Variable(np.zeros(3, "float32"))])
    for wrong in (["a"] * 4, [1.0, 2.0], None):
        with pytest.raises(ValueError, match="Received"):
            strategy.tell(wrong)
    with pytest.raises(ValueError, match="of pure evolution.*Received"):
        optimizers.SNES("sgd", 4).ask()


def test_a_shaping_of_another_shape_is_refused():
    strategy = optimizers.SNES(None, 4, fitness_shaping=lambda losses: losses[:1])
    strategy.build([keras.Variable(np.zeros(3, "float32"))])
    with pytest.raises(ValueError, match="a utility for each member.*Received"):
        strategy.tell([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("correction", [0.5, None])
def test_correction_may_be_a_schedule(correction):
    if correction is None:
        correction = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    optimizer = optimizers.GuidedNES("sgd", correction=correction)
    again = optimizers.GuidedNES.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
