"""Updates of pure evolution equal NumPy's, several generations long."""

import keras
import numpy as np
import pytest

from keras_es.optimizers import PGPE, PURE, SNES, OpenES, SepCMAES
from tests.reference import numpy_es

MEMBERS = 12
SIGMA = 0.4


def start():
    random = np.random.default_rng(3)
    return [random.normal(size=s).astype("float32") for s in ((3, 2), (4,))]


def bound(strategy):
    """Build a strategy on two variables and return them."""
    variables = [keras.Variable(value) for value in start()]
    strategy.build(variables)
    return variables


def flat(values):
    return np.concatenate([np.asarray(v, "float64").ravel() for v in values])


def rows(population):
    return np.concatenate(
        [np.asarray(v, "float64").reshape(len(v), -1) for v in population], axis=1
    )


def generations(strategy, count=4):
    """Yield (members [n, d], losses [n], new mean [d]) of some generations."""
    variables = bound(strategy)
    random = np.random.default_rng(0)
    for _ in range(count):
        members = rows(strategy.ask())
        losses = random.normal(size=len(members)).astype("float32")
        strategy.tell(losses)
        yield members, losses, flat(variables)


@pytest.mark.parametrize("settings", [{}, {"rank": 1}, {"pairs_per_draw": 3}], ids=str)
def test_open_es(settings):
    mean = flat(start())
    sgd = keras.optimizers.SGD(0.1)
    strategy = OpenES(None, MEMBERS, sigma=SIGMA, mean_optimizer=sgd, **settings)
    for members, losses, new in generations(strategy):
        noise = (members - mean) / SIGMA
        mean = mean - 0.1 * numpy_es.open_es(noise, losses, SIGMA)
        np.testing.assert_allclose(new, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"rank": 1}, {"pairs_per_draw": 3}], ids=str)
def test_snes(settings):
    mean, std = flat(start()), SIGMA
    strategy = SNES(None, MEMBERS, sigma=SIGMA, **settings)
    for members, losses, new in generations(strategy):
        noise = (members - mean) / std
        mean, std = numpy_es.snes(mean, std, noise, losses)
        np.testing.assert_allclose(new, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(flat(strategy.scales()), std, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"rank": 1}], ids=str)
def test_pgpe(settings):
    mean, std, velocity = flat(start()), np.full(10, SIGMA), np.zeros(10)
    strategy = PGPE(None, MEMBERS, sigma=SIGMA, std_learning_rate=2.0, **settings)
    speed = SIGMA * np.sqrt(10) / 15
    for members, losses, new in generations(strategy):
        noise = (members - mean) / std
        mean, std, velocity = numpy_es.pgpe(
            mean, std, velocity, noise, losses, speed / 2, 0.9, speed, 2.0
        )
        np.testing.assert_allclose(new, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(flat(strategy.scales()), std, rtol=1e-4)


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("members", [MEMBERS, 13])
def test_sep_cma_es(members, scale):
    state = (flat(start()), SIGMA, np.ones(10), np.zeros(10), np.zeros(10))
    strategy = SepCMAES(None, members, sigma=SIGMA, rate_scale=scale)
    for generation, (rows, losses, new) in enumerate(generations(strategy)):
        noise = (rows - state[0]) / (state[1] * np.sqrt(state[2]))
        state = numpy_es.sep_cma_es(state, noise, losses, generation, scale)
        np.testing.assert_allclose(new, state[0], rtol=1e-4, atol=1e-5)
    scales = state[1] * np.sqrt(state[2])
    np.testing.assert_allclose(flat(strategy.scales()), scales, rtol=1e-4)


def test_speed_of_clip_up_is_bounded_and_follows_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.03, 0.005])
    strategy = PGPE(None, MEMBERS, sigma=SIGMA, max_speed=schedule)
    mean, steps = flat(start()), []
    for _, _, new in generations(strategy, 8):
        steps.append(np.linalg.norm(new - mean))
        mean = new
    assert 0.014 < steps[0] < 0.016 and max(steps[:3]) < 0.0301
    np.testing.assert_array_less(steps[3:], 0.00501)


@pytest.mark.parametrize("name", sorted(PURE))
def test_members_are_the_same_until_told(name):
    strategy = PURE[name](None, population_size=MEMBERS, seed=4)
    bound(strategy)
    first, again = rows(strategy.ask()), rows(strategy.ask())
    np.testing.assert_array_equal(first, again)
    strategy.tell(np.arange(MEMBERS))
    assert not np.isin(rows(strategy.ask()), first).all()


@pytest.mark.parametrize("name", sorted(PURE))
def test_failed_members_rank_worst_and_all_failed_change_nothing(name):
    results = []
    for worst in (1e9, np.nan, np.inf):
        strategy = PURE[name](None, population_size=MEMBERS, seed=4)
        variables = bound(strategy)
        before = flat(variables)
        strategy.tell(np.full(MEMBERS, np.nan))
        np.testing.assert_array_equal(flat(variables), before)
        losses = np.arange(MEMBERS, dtype="float32")
        losses[3] = worst
        for _ in range(2):
            strategy.tell(losses)
        results.append(flat(variables))
        assert (results[-1] != before).any()
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(PURE))
def test_losses_of_another_number_are_refused(name):
    strategy = PURE[name](None, population_size=MEMBERS)
    bound(strategy)
    with pytest.raises(ValueError, match=r"shape \[12\].*Received: shape=\(11,\)"):
        strategy.tell(np.zeros(11))
