"""Schedules that fit a run of known length."""

import keras
import pytest

import keras_es
from keras_es import optimizers, schedules
from keras_es.optimizers import Falling, Turns, for_run
from tests.reference import problems

STEPS = 200


def made(name, **kwargs):
    cls = optimizers.get(name)
    return for_run(cls, "adam", problems.make_model(), STEPS, **kwargs)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_every_method_can_be_made(name):
    assert type(made(name, seed=3)) is optimizers.get(name)
    assert made(name, seed=3).seed == 3


@pytest.mark.parametrize("name", ["rigl", "set"])
def test_moving_masks_rest_after_three_quarters(name):
    schedule = made(name).update_schedule
    assert (schedule.end_step, schedule.update_every) == (150, 2)


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_a_name_stands_for_its_class(name):
    model = problems.make_model()
    by_name, by_class = (
        for_run(method, "adam", model, STEPS, name="mine")
        for method in (name, optimizers.get(name))
    )
    assert type(by_name) is type(by_class)
    assert by_name.get_config().keys() == by_class.get_config().keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cls": "rigL"}, "Did you mean rigl.*Received: 'rigL'"),
        ({"cls": None}, "`cls` must be a class of keras_es.optimizers.*cls=None"),
        ({"cls": keras.optimizers.Adam}, "that moves masks.*'rigl'.*Received: cls="),
        ({"model": None}, "`model` must be the Keras model.*Received: model=None"),
        ({"steps": -1}, "`steps` must be an integer of at least 1.*steps=-1"),
        ({"steps": 0}, "at least 1. Received: steps=0"),
        ({"steps": True}, "`steps` must be an integer.*steps=True"),
        ({"steps": 10.0}, "`steps` must be an integer.*steps=10.0"),
        ({"begin_dense": "no"}, "`begin_dense` must be True or False.*='no'"),
        ({"inner_optimizer": None}, "trains the weights.*inner_optimizer=None"),
    ],
    ids=str,
)
def test_bad_arguments_say_what_was_expected(given, message):
    fine = {"cls": "rigl", "inner_optimizer": "adam", "steps": STEPS}
    model = problems.make_model()
    with pytest.raises(ValueError, match=message):
        for_run(**{**fine, "model": model, **given})


@pytest.mark.parametrize("name", sorted({*optimizers.PURE} - {*optimizers.OPTIMIZERS}))
def test_strategies_of_weights_alone_are_refused(name):
    with pytest.raises(ValueError, match="evolves the weights: it has no schedule"):
        for_run(name, None, problems.make_model(), STEPS)


def test_pruning_ends_after_three_quarters():
    schedule = made("gradual_magnitude").sparsity_schedule
    assert (schedule.end_step, schedule.update_every) == (150, 2)
    short = made("gradual_magnitude", end_step=20)
    assert short.sparsity_schedule.end_step == 20


def test_long_runs_move_every_hundred_steps():
    model = problems.make_model()
    optimizer = for_run(optimizers.RigL, "adam", model, 10**6)
    assert optimizer.update_schedule.update_every == 100
    one_step = for_run(optimizers.RigL, "adam", model, 1)
    assert one_step.update_schedule.end_step == 1


@pytest.mark.parametrize(
    ("name", "generations", "kwargs"),
    [
        ("straight_through", 200, {}),
        ("guided_nes", 25, {}),
        ("guided_nes", 50, {"turns": Turns(steps=4)}),
    ],
)
def test_scores_come_to_rest_at_the_end(name, generations, kwargs):
    optimizer = made(name, **kwargs)
    rate = optimizer.score_optimizer._learning_rate
    first = 3.0 * type(optimizer).default_score_learning_rate
    assert float(rate(0)) == pytest.approx(first)
    assert float(rate(generations)) == pytest.approx(0.0, abs=1e-9)
    assert float(rate(generations // 2)) == pytest.approx(first / 2, rel=0.1)


def test_what_is_given_wins():
    own = keras.optimizers.SGD(0.5)
    assert made("straight_through", score_optimizer=own).score_optimizer is own
    schedule = schedules.ConstantUpdates(0.1)
    assert made("set", update_schedule=schedule).update_schedule is schedule


def coarse(method=optimizers.OpenES, **kwargs):
    dense = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)])
    blocks = keras_es.patterns.Block(8, 4)
    model = keras_es.sparsify(dense, 0.5, pattern=blocks)
    return for_run(method, "adam", model, STEPS, **kwargs)


def test_search_of_few_units_ends():
    optimizer = coarse()
    assert optimizer.sparsity_schedule is optimizer.magnitude_pull is None
    assert float(optimizer.sigma(0)) == 2.0
    assert float(optimizer.sigma(120)) == 0.0
    assert float(optimizer.score_optimizer._learning_rate(120)) == 0.0
    assert coarse(sigma=0.3).sigma == 0.3
    assert float(coarse(turns=Turns(2)).sigma(30)) == 0.0


def test_search_that_begins_dense_ends():
    optimizer = made("open_es", begin_dense=True, turns=Turns(8, 1))
    assert float(optimizer.sigma(0)) == 1.0
    assert float(coarse(begin_dense=True).sigma(0)) == 0.5
    assert float(optimizer.sigma(120)) == 0.0


@pytest.mark.parametrize("name", ["guided_nes", "bernoulli_nes"])
def test_bernoulli_masks_that_begin_dense_rest(name):
    turns = {"turns": Turns(2, 1), "population_size": 2}
    optimizer = made(name, begin_dense=True, **turns)
    default = made(name, **turns).sigma
    for generation in (0, 119):
        assert float(optimizer.sigma(generation)) == pytest.approx(default)
    assert float(optimizer.sigma(120)) == 0.0
    rate = optimizer.score_optimizer._learning_rate
    assert float(rate(60)) > 0.0 == float(rate(120))
    assert made(name, begin_dense=True, sigma=0.2, **turns).sigma == 0.2


@pytest.mark.parametrize("name", problems.POPULATIONS)
def test_strategies_may_begin_dense(name):
    assert made(name).sparsity_schedule is None
    assert made(name).magnitude_pull is None
    optimizer = made(name, begin_dense=True, turns=Turns(2, 1))
    assert optimizer.sparsity_schedule.end_step == 80
    if name == "guided_nes":
        assert optimizer.magnitude_pull is None
        assert coarse(optimizers.GuidedNES, begin_dense=True).magnitude_pull is not None
        return
    generation = optimizer.population_size // 2
    first, last = (float(optimizer.magnitude_pull(n)) for n in (0, 120))
    assert first == pytest.approx(1.0 - 0.9**generation)
    assert last == 0.0
    assert (
        made(name, begin_dense=True, density=Falling(None, 0.0)).magnitude_pull == 0.0
    )
    own = schedules.OneShot(7)
    assert made(name, begin_dense=True, density=Falling(own)).sparsity_schedule is own


def test_block_sparse_layers_do_not_begin_dense():
    layer = keras_es.layers.BlockSparseDense(16, sparsity=0.5, block_size=8)
    model = keras_es.ESSequential([keras.Input((16,)), layer])
    optimizer = for_run(optimizers.OpenES, "adam", model, STEPS, begin_dense=True)
    assert optimizer.sparsity_schedule is optimizer.magnitude_pull is None
    assert float(optimizer.sigma(0)) == 2.0
