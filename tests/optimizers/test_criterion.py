"""Evolution of the criterion: masks in NumPy, judgements by hand, what it finds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import patterns, schedules
from keras_es.optimizers import GradualMagnitude, GuidedES, GuidedNES
from keras_es.optimizers.search.allocation import whole_shares
from tests.marks import slow


def two_branches(optimizer, pattern=None, sparsity=0.75, **kwargs):
    """y = A x1 + B x2 with two masked kernels, and a target of x1 alone."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((32,))
    left = keras.layers.Dense(4, name="left", use_bias=False)(inputs[:, :16])
    right = keras.layers.Dense(4, name="right", use_bias=False)(inputs[:, 16:])
    model = keras.Model(inputs, keras.layers.Add()([left, right]))
    model = keras_es.sparsify(model, sparsity, pattern=pattern, seed=3)
    model.compile(optimizer, loss="mse", **{"jit_compile": False} | kwargs)
    random = np.random.default_rng(1)
    x = random.normal(size=(64, 32)).astype("float32")
    y = x[:, :16] @ random.normal(size=(16, 4)) + 0.1 * random.normal(size=(64, 4))
    return model, x, y.astype("float32")


def adam():
    return keras.optimizers.Adam(0.02)


def masks(model):
    return [m.kernel_mask.numpy() for m in keras_es.masked_weights(model)]


def fit(model, x, y, epochs=1):
    model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)


def test_without_a_step_it_is_gradual_magnitude_to_the_bit():
    """Judging leaves nothing behind either: the rate is not 0 but nothing moves."""
    falling = schedules.PolynomialSparsity(5)
    plain = GradualMagnitude(adam(), sparsity_schedule=falling, masked_out="learn")
    ends = []
    for optimizer in (plain, GuidedES(adam(), falling, 2, mean_learning_rate=1e-30)):
        model, x, y = two_branches(optimizer)
        fit(model, x, y, epochs=3)
        ends.append([m.kernel.numpy() for m in keras_es.masked_weights(model)])
        ends[-1] += masks(model)
    for expected, found in zip(*ends):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("moments", [False, True])
def test_masks_are_the_largest_of_each_in_numpy(moments):
    optimizer = GuidedES(adam(), mean_learning_rate=0.0, moments=moments)
    model, x, y = two_branches(optimizer)
    fit(model, x, y)
    genes = np.array([[0.7, -0.2], [0.5, 1.5 if moments else 0.0]], "float32")
    optimizer.search.genes.assign(genes)
    fit(model, x, y)
    # 32 exp(a) / sum exp(a) = 22.75 and 9.25, in place of 16 and 16
    kept = np.round(32 * np.exp(genes[0]) / np.exp(genes[0]).sum()).astype(int)
    assert kept.tolist() == [23, 9]
    weights = keras_es.masked_weights(model)
    for m, k, gamma, found in zip(weights, kept, genes[1], masks(model)):
        c = np.abs(m.kernel.numpy()).astype("float64")
        if moments:
            v = optimizer.inner.slots[id(m.kernel)][1].numpy().astype("float64")
            c = c * (v / v.mean() + 1e-6) ** (gamma / 2)
        np.testing.assert_array_equal(found, c >= np.sort(c, axis=None)[-k])
    assert keras_es.sparsity_report(model).nonzero_masked == 32


def test_units_are_shared_out_in_proportion_within_bounds():
    """As a bisection in NumPy does it, to less than one unit; the sum is exact."""
    random = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 8, 40):
        most = random.integers(1, 10 ** random.integers(1, 8), n)
        least = np.minimum(random.integers(0, 3, n), most)
        wanted = np.exp(3 * random.normal(size=n)) * random.integers(1, 1000, n)
        total = random.integers(least.sum(), most.sum() + 1)
        found = whole_shares(wanted, least, most, total).numpy()
        assert found.sum() == total
        assert np.all(found >= least) and np.all(found <= most)
        low, high = -60.0, 60.0
        for _ in range(100):
            middle = (low + high) / 2
            below = np.clip(np.exp(middle) * wanted, least, most).sum() < total
            low, high = (middle, high) if below else (low, middle)
        real = np.clip(np.exp(low) * wanted, least, most)
        assert np.all(np.abs(found - real) < 1 + 1e-6)
        # What is wanted in whole numbers is given.
        whole = whole_shares(most, 0 * most, 2 * most, most.sum())
        np.testing.assert_array_equal(whole, most)


def test_units_are_shared_out_at_their_prices():
    """As a bisection in NumPy does it; the cheapest takes what rounding leaves."""
    random = np.random.default_rng(1)
    for n in (1, 2, 3, 5, 8, 40):
        prices = random.integers(1, 1000, n).astype("float64")
        most = random.integers(1, 10 ** random.integers(1, 8), n)
        least = np.minimum(random.integers(0, 3, n), most)
        wanted = np.exp(3 * random.normal(size=n)) * random.integers(1, 1000, n)
        total = np.float64(random.uniform(prices @ least, prices @ most))
        found = whole_shares(wanted, least, most, total, prices.tolist()).numpy()
        assert np.all(found >= least) and np.all(found <= most)
        low, high = -60.0, 60.0
        for _ in range(100):
            middle = (low + high) / 2
            below = prices @ np.clip(np.exp(middle) * wanted, least, most) < total
            low, high = (middle, high) if below else (low, middle)
        real = np.clip(np.exp(low) * wanted, least, most)
        cheapest = prices.argmin()
        others = np.arange(n) != cheapest
        assert np.all(np.abs(found - np.floor(real + 1e-6))[others] <= 1e-9)
        left = total - prices @ found
        assert left >= -1e-6 * total
        assert left < prices[cheapest] or found[cheapest] == most[cheapest]
        # What is wanted in whole numbers is given.
        half = (most + 1) // 2
        whole = whole_shares(half, 0 * most, most, prices @ half, prices.tolist())
        np.testing.assert_array_equal(whole, half)


def test_weights_whose_units_differ_in_size_keep_to_the_allocation():
    pattern = {"left": patterns.Block(2, 2), "right": patterns.NByM(1, 4)}
    optimizer = GuidedES(adam())
    model, x, y = two_branches(optimizer, pattern)
    optimizer.build(model.trainable_variables)
    optimizer.search.genes.assign([[2.0, -2.0], [0.0, 0.0]])
    fit(model, x, y)
    assert [m.sum() for m in masks(model)] == [16, 16]
    assert optimizer.search.is_empty


@pytest.mark.parametrize("jit_compile", [slow(False), True])
def test_a_judgement_by_hand(jit_compile):
    """Losses of the members' masks on the next batch, and the step of the genes."""
    optimizer = GuidedES(
        keras.optimizers.SGD(0.0), judge_every=1, sigma=0.5, mean_learning_rate=0.1
    )
    model, x, y = two_branches(optimizer, jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)
    genes = np.array([[0.3, -0.1], [0.0, 0.0]], "float32")
    optimizer.search.genes.assign(genes)
    z, deployed = optimizer.search.noise(0).numpy(), masks(model)
    losses = []
    for sign in (1, -1):
        units = optimizer.search.decode(genes + sign * 0.5 * z, [16, 16])[1]
        for m, mask in zip(keras_es.masked_weights(model), units):
            m.kernel_mask.assign(mask)
        losses.append(model.evaluate(x, y, batch_size=64, verbose=0))
    for m, mask in zip(keras_es.masked_weights(model), deployed):
        m.kernel_mask.assign(mask)
    model.train_on_batch(x, y)
    d = (losses[0] - losses[1]) / 2
    expected = 0.99 * genes - 0.1 * d * z / abs(d)
    np.testing.assert_allclose(optimizer.search.genes.numpy(), expected, 1e-4, 1e-5)
    np.testing.assert_allclose(optimizer.search.scale.numpy(), d * d, 1e-3)


def test_a_member_that_failed_says_nothing():
    search = GuidedES(adam(), judge_every=1).search
    model, _, _ = two_branches(search.optimizer)
    search.optimizer.build(model.trainable_variables)
    step, square = search.estimate(tf.constant([np.nan, 1.0]), tf.constant([0, 1]) > 0)
    assert not np.any(step) and square == 0.0


def test_losses_give_units_to_the_weight_that_needs_them():
    optimizer = GuidedES(adam(), judge_every=1, judged_pairs=2, mean_learning_rate=0.1)
    model, x, y = two_branches(optimizer)
    fit(model, x, y, epochs=20)
    left, right = (m.sum() for m in masks(model))
    assert left + right == 32 and left >= 22
    a = optimizer.search.genes.numpy()[0]
    assert a[0] > a[1]


def test_weights_that_exchanged_units_can_be_set_again():
    """As `EarlyStopping` does; their total is looked at, and what it should be."""
    model, x, y = two_branches(GuidedES(adam()))
    first = model.get_weights()
    model.optimizer.build(model.trainable_variables)
    model.optimizer.search.genes.assign([[0.5, -0.5], [0.0, 0.0]])
    fit(model, x, y)
    weights, chosen = model.get_weights(), masks(model)
    assert chosen[0].sum() > 16
    model.set_weights(first)
    model.set_weights(weights)
    other, _, _ = two_branches(GuidedES(adam()))
    other.set_weights(weights)
    for found, expected in zip(masks(other), chosen):
        np.testing.assert_array_equal(found, expected)
    (sparser, _, _) = two_branches(GuidedES(adam()), sparsity=0.875)
    with pytest.raises(ValueError, match="Received: 16 non-zeros, expected 32"):
        model.set_weights(sparser.get_weights())


def test_a_fitness_without_gradient_decides():
    """It wants what x2 says, whatever the loss: units go to the other branch."""

    def silent(y, y_pred):
        return -keras.ops.cast(keras.ops.abs(y_pred[:, 0]) > 1.0, "float32")

    optimizer = GuidedES(adam(), judge_every=1, fitness=silent)
    model, x, y = two_branches(optimizer)
    fit(model, x, y, epochs=3)
    assert np.any(optimizer.search.genes.numpy()[0] != 0.0)
    assert not np.any(optimizer.search.genes.numpy()[1])


def test_a_fitness_sees_the_kernels_of_a_member():
    """So it can count what they cost; units leave the branch that is dear."""
    model, x, y = two_branches("sgd")
    left = model.get_layer("left")

    def dear(y, y_pred):
        return keras.ops.cast(keras.ops.count_nonzero(left.kernel), "float32")

    optimizer = GuidedES(adam(), judge_every=1, fitness=dear, mean_learning_rate=0.1)
    model.compile(optimizer, loss="mse", jit_compile=False)
    fit(model, x, y, epochs=3)
    first, second = (m.sum() for m in masks(model))
    assert first + second == 32 and first < 12


def test_costs_stay_what_they_were_and_not_numbers():
    """Three blocks of 4 weights cost what 6 single weights do, at 2 for 1 and 4."""
    pattern = {"left": patterns.Block(2, 2)}
    optimizer = GuidedES(adam(), mean_learning_rate=0.0, costs={"lef.": 2, "right": 4})
    model, x, y = two_branches(optimizer, pattern)
    fit(model, x, y)
    assert [m.sum() for m in masks(model)] == [16, 16]
    optimizer.search.genes.assign([[-0.5, 0.5], [0.0, 0.0]])
    fit(model, x, y)
    # x is 0.754: 4 exp(-0.5) x and 16 exp(0.5) x are 1.8 and 19.9 of 96 = 8 k1 + 4 k2
    assert [m.sum() for m in masks(model)] == [4, 22]
    weights, chosen = model.get_weights(), masks(model)
    model.set_weights(weights)  # 26 non-zeros, which are not fewer than asked for
    fit(model, x, y)
    again, _, _ = two_branches(GuidedES.from_config(optimizer.get_config()), pattern)
    again.set_weights(weights)
    for found, expected in zip(masks(again), chosen):
        np.testing.assert_array_equal(found, expected)
    sparser, _, _ = two_branches("sgd", pattern, sparsity=0.9)
    with pytest.raises(ValueError, match="Received: .* non-zeros, expected 32"):
        model.set_weights(sparser.get_weights())


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (
            {"lefd": 2.0},
            "`costs` must name a masked weight.*'left.kernel'.*Received: 'lefd'",
        ),
        ({"left": 0.0}, "a number above 0. Received: 'left': 0.0"),
        ({"left": True}, "a number above 0. Received: 'left': True"),
        ([2.0], "`costs` must be a dict.*Received: costs="),
    ],
)
def test_bad_costs_are_refused(costs, message):
    with pytest.raises(ValueError, match=message):
        model, x, y = two_branches(GuidedES(adam(), costs=costs))
        fit(model, x, y)


def test_what_had_its_names_before_is_still_found():
    old = GuidedNES("adam", correction=0.5).get_config()
    again = GuidedES.from_config(old)
    assert type(again) is GuidedNES and again.correction == 0.5
    assert type(GuidedES.from_config(GuidedES("adam").get_config())) is GuidedES
    assert keras.saving.get_registered_object("keras_es>CriterionES") is GuidedES
    assert keras.saving.get_registered_name(GuidedES) == "keras_es>GuidedES"
    with pytest.raises(ValueError, match=r"GuidedNES now.*Received: correction=1\.0"):
        GuidedES("adam", correction=1.0)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_training_goes_on_to_the_bit_after_a_file(tmp_path, jit_compile):
    def make():
        optimizer = GuidedES(adam(), judge_every=2, mean_learning_rate=0.3)
        return two_branches(optimizer, jit_compile=jit_compile)

    model, x, y = make()
    fit(model, x, y, epochs=2)
    model.save(tmp_path / "half.keras")
    fit(model, x, y)
    again = keras.models.load_model(tmp_path / "half.keras")
    fit(again, x, y)
    for expected, found in zip(model.variables, again.variables):
        np.testing.assert_array_equal(found, expected, err_msg=expected.path)
    genes = [m.optimizer.search.genes.numpy() for m in (model, again)]
    np.testing.assert_array_equal(*genes)


def test_for_run_ends_the_search_and_the_dense_beginning():
    model, _, _ = two_branches("sgd")
    run = keras_es.optimizers.for_run
    optimizer = run("guided_es", "adam", model, 100, begin_dense=True)
    assert optimizer.sparsity_schedule.end_step == 50
    assert float(optimizer.mean_learning_rate(75)) == 0.0
    assert optimizer.explore_until == 50
    sparse = run(GuidedES, "adam", model, 100)
    assert isinstance(sparse.sparsity_schedule, schedules.ConstantSparsity)
    assert run(GuidedES, "adam", model, 100, masked_out="rest").explore_until is None
