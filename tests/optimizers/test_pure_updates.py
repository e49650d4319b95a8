"""Updates of pure evolution equal NumPy's, several generations long."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es.noise import Full, LowRank, Orthogonal
from keras_es.ops import genetic, noise
from keras_es.optimizers import PGPE, SNES, Alopex, GeneticAlgorithm, OpenES, SepCMAES
from tests.reference import numpy_es, pure

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


@pytest.mark.parametrize("noise", [None, LowRank(1), Full(3), Orthogonal()], ids=str)
def test_open_es(noise):
    mean = flat(start())
    sgd = keras.optimizers.SGD(0.1)
    strategy = OpenES(None, MEMBERS, sigma=SIGMA, mean_optimizer=sgd, noise=noise)
    for members, losses, new in generations(strategy):
        noise = (members - mean) / SIGMA
        mean = mean - 0.1 * numpy_es.open_es(noise, losses, SIGMA)
        np.testing.assert_allclose(new, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", [None, LowRank(1), Full(3), Orthogonal()], ids=str)
def test_snes(noise):
    mean, std = flat(start()), SIGMA
    strategy = SNES(None, MEMBERS, sigma=SIGMA, noise=noise)
    for members, losses, new in generations(strategy):
        noise = (members - mean) / std
        mean, std = numpy_es.snes(mean, std, noise, losses)
        np.testing.assert_allclose(new, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(flat(strategy.scales()), std, rtol=1e-4)


@pytest.mark.parametrize("noise", [None, LowRank(1), Orthogonal()], ids=str)
def test_pgpe(noise):
    mean, std, velocity = flat(start()), np.full(10, SIGMA), np.zeros(10)
    strategy = PGPE(None, MEMBERS, sigma=SIGMA, std_learning_rate=2.0, noise=noise)
    speed = SIGMA * np.sqrt(10) / 15
    for members, losses, new in generations(strategy):
        noise = (members - mean) / std
        mean, std, velocity = numpy_es.pgpe(
            mean, std, velocity, noise, losses, speed / 2, 0.9, speed, 2.0
        )
        np.testing.assert_allclose(new, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(flat(strategy.scales()), std, rtol=1e-4)


@pytest.mark.parametrize("noise", [None, Orthogonal()], ids=str)
@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("members", [MEMBERS, 13])
def test_sep_cma_es(members, scale, noise):
    state = (flat(start()), SIGMA, np.ones(10), np.zeros(10), np.zeros(10))
    strategy = SepCMAES(None, members, sigma=SIGMA, rate_scale=scale, noise=noise)
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


@pytest.mark.parametrize("name", pure.NAMES)
def test_members_are_the_same_until_told(name):
    strategy = pure.make(name, seed=4)
    bound(strategy)
    for _ in range(2):
        first, again = rows(strategy.ask()), rows(strategy.ask())
        np.testing.assert_array_equal(first, again)
        strategy.tell(np.arange(len(first)))
    assert not np.isin(rows(strategy.ask()), first).all()
    assert int(strategy.iterations.value) == int(strategy.steps_done()) == 2


@pytest.mark.parametrize("name", [n for n in pure.NAMES if n != "alopex"])
def test_failed_members_rank_worst_and_all_failed_change_nothing(name):
    results = []
    for worst in (1e9, np.nan, np.inf):
        strategy = pure.make(name, seed=4)
        variables = bound(strategy)
        before = flat(variables)
        strategy.tell(np.full(MEMBERS, np.nan))
        np.testing.assert_array_equal(flat(variables), before)
        losses = np.arange(MEMBERS, dtype="float32")
        losses[3] = worst
        for _ in range(3):
            strategy.tell(losses[::-1])
        results.append(flat(variables))
        assert (results[-1] != before).any()
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-5)


@pytest.mark.parametrize("name", pure.NAMES)
def test_losses_of_another_number_are_refused(name):
    strategy = pure.make(name)
    bound(strategy)
    n = strategy.population_size
    expected = rf"shape \[{n}\].*Received: shape=\({n + 1},\)"
    with pytest.raises(ValueError, match=expected):
        strategy.tell(np.zeros(n + 1))


@pytest.mark.parametrize("losses", [[1j] * 4, ["low"] * 4], ids=["complex", "text"])
def test_losses_that_have_no_order_are_refused(losses):
    strategy = OpenES(None, 4)
    bound(strategy)
    with pytest.raises(ValueError, match="must be 4 numbers, the loss of.*Received: "):
        strategy.tell(losses)


@keras.saving.register_keras_serializable(package="test_pure_updates")
def negative(fitness):
    return -fitness


@pytest.mark.parametrize("shaping", ["raw", "standardize", negative])
def test_huge_and_failed_losses_leave_weights_finite(shaping):
    sgd = keras.optimizers.SGD(1e-40)
    strategy = OpenES(None, 4, fitness_shaping=shaping, mean_optimizer=sgd)
    variables = bound(strategy)
    for losses in ([3e38, 3e38, 0.0, 1.0], [np.nan, 1.0, 2.0, 3.0], [np.inf] * 4):
        strategy.tell(losses)
        assert np.isfinite(flat(variables)).all()


def test_members_and_elite_of_a_genetic_algorithm_keep_to_constraints():
    strategy = GeneticAlgorithm(
        population_size=4, parents=2, elite_candidates=1, sigma=1.0
    )
    variables = [keras.Variable(value) for value in start()]
    variables[0].constraint = keras.constraints.MaxNorm(0.5)
    strategy.build(variables)
    for generation in range(2):
        members = np.asarray(strategy.ask()[0])
        norms = np.linalg.norm(members, axis=1)
        assert norms[1:].max() <= 0.5 + 1e-5
        strategy.tell([3.0, 2.0, 0.0, 1.0])
        assert generation < 1 or np.isclose(members, variables[0]).all((1, 2)).any()


def test_alopex():
    mean, signs, temperature = flat(start()), np.zeros(10), 0.0
    strategy = Alopex(step_size=0.1, momentum=0.8, seed=3)
    keys = [noise.stream_key(3, f"alopex {i}") for i in range(2)]
    for generation, (members, losses, new) in enumerate(generations(strategy)):
        np.testing.assert_allclose(members[1], mean - 0.1 * signs, atol=1e-6)
        change = float(losses[0] - losses[1])
        uniform = flat(
            noise.uniform(v.shape, noise.counter_seed(key, generation, 0))
            for key, v in zip(keys, start())
        )
        mean, signs, temperature = numpy_es.alopex(
            mean, signs, temperature, change, uniform, 0.1, 0.8
        )
        np.testing.assert_allclose(new, mean, rtol=1e-5, atol=1e-6)


def test_alopex_does_not_hear_a_replica_without_examples():
    strategy = Alopex(seed=3)
    bound(strategy)
    said = strategy.estimate(tf.constant([0.2, 0.5]), tf.constant([True, True]), None)
    nothing = strategy.estimate(tf.zeros(2), tf.constant([False, False]), None)
    together = [(a + b) / 2 for a, b in zip(said, nothing)]
    moved = [strategy.update(estimate, True)[0] for estimate in (said, together)]
    np.testing.assert_array_equal(*map(flat, moved))
    (_, temperature), *_ = strategy.update(together, True)[1]
    assert float(temperature) == pytest.approx(0.3)


def test_alopex_goes_back_from_where_the_loss_is_not_finite():
    strategy = Alopex(step_size=0.1, seed=3)
    variables = bound(strategy)
    for losses in ([1.0, 1.0], [0.5, 1.0]):
        strategy.tell(losses)
    before = flat(variables)
    forth = before - rows(strategy.ask())[1]
    strategy.tell([np.nan, 1.0])
    assert np.sum((flat(variables) - before) * forth) < 0


def test_genetic_algorithm_decodes_its_genomes():
    """Weights of survivors are those of the members that they were."""
    strategy = pure.make("genetic_algorithm", sigma=0.3)
    variables = bound(strategy)
    decoded = tf.function(strategy.parent_values, autograph=False)
    random = np.random.default_rng(0)
    last = np.zeros(2)
    for _ in range(40):
        members = rows(strategy.ask())
        losses = random.normal(size=MEMBERS).astype("float32")
        elite = int(np.argmin(last + losses[:2]))
        order = np.argsort(np.where(np.arange(MEMBERS) == elite, -np.inf, losses))[:4]
        last = losses[order[:2]]
        strategy.tell(losses)
        parents = rows(decoded())
        np.testing.assert_allclose(parents, members[order], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(flat(variables), members[elite], 1e-4, 1e-4)
    # Without common ancestors genomes would be 40 long.
    assert 0 <= int(strategy._length.value) < 30


def test_a_genome_that_is_full_keeps_the_lineage_of_the_elite():
    genes = np.array([[5, 1, 2], [6, 3, 4], [7, 1, 2]])
    kept = genetic.one_lineage(keras.ops.convert_to_tensor(genes), 3)
    np.testing.assert_array_equal(kept, [[5, 1, 2], [5, 1, 2], [7, 1, 2]])


def test_genomes_are_small():
    strategy = GeneticAlgorithm()
    strategy.build([keras.Variable(np.zeros((1000, 1000), "float32"))])
    genes = int(np.prod(strategy._genes.shape)) / strategy.parents
    assert genes == 256
