"""Members that fail rank worst and teach nothing; a step without members is void."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers, patterns
from tests.marks import slow_unless
from tests.reference import problems

NAMES = sorted(optimizers.OPTIMIZERS)
COUNTERS = ("generation", "nonfinite_members", "skipped_steps", "mask_flip_ratio")


@keras.saving.register_keras_serializable(package="test_nonfinite")
class NeedsFirst(keras.layers.Layer):
    """Passes its inputs on; NaN where the first one is zero."""

    def call(self, x):
        return keras.ops.where(x[:, :1] == 0, float("nan"), x)


def make_model():
    """A network that fails for every member whose mask lacks channel 0."""
    keras.utils.set_random_seed(0)
    return keras_es.ESSequential(
        [
            keras.Input((problems.INPUTS,)),
            keras_es.layers.MaskedDense(
                8, sparsity=0.5, pattern=patterns.Channel(), use_bias=False
            ),
            NeedsFirst(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def masks_of_the_coming_step(optimizer):
    """Unit masks of all members, [n, units]."""
    return np.array(
        [
            np.array(units)
            for pair in range(optimizer.pairs)
            for (units,) in optimizer.member_masks(pair)
        ]
    )


@pytest.mark.parametrize("name", problems.POPULATIONS)
def test_failed_members_are_counted_and_teach_nothing(name):
    optimizer = problems.make(name, "sgd", population_size=8, sigma=0.5)
    model = problems.compiled(optimizer, make_model())
    x, y = problems.data()
    optimizer.build(model.trainable_variables)
    (masked,) = optimizer.masked_weights
    # Channel 0 on the edge of the mask: some members have it and some have not.
    others = np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    counted = 0
    for _ in range(4):
        masked.mask_scores.assign(np.concatenate([[0.0], others]))
        masks = masks_of_the_coming_step(optimizer)
        fail = ~masks[:, 0]
        logs = model.train_on_batch(x, y, return_dict=True)
        counted += fail.sum()
        assert logs["nonfinite_members"] == counted
        assert np.isfinite(logs["loss"]) and np.isfinite(logs["population_loss"])
    assert 0 < counted < 32
    assert int(optimizer.nonfinite_members.value) == counted
    assert int(optimizer.skipped_steps.value) == 0
    for path, value in problems.weights_of(model).items():
        assert np.all(np.isfinite(value)), path


@pytest.mark.parametrize("name", ["snes", "open_es", "bernoulli_nes"])
def test_failed_members_rank_worst(name):
    optimizer = problems.make(name, "sgd", population_size=8, sigma=0.5)
    model = problems.compiled(optimizer, make_model())
    optimizer.build(model.trainable_variables)
    (masked,) = optimizer.masked_weights
    start = np.array([0.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    masked.mask_scores.assign(start)
    problems.fit(model, epochs=8)
    scores = masked.mask_scores.numpy()
    assert scores[0] > 0.0 and masked.kernel_mask.numpy()[0, 0]


def rooted(y, p):
    """Loss that is finite for y = 2, with a gradient that is not: of a root at 0."""
    root = keras.ops.sqrt(keras.ops.where(y > 1, 0.0, 1.0) * p**2)
    return keras.losses.binary_crossentropy(keras.ops.minimum(y, 1.0), p) + root[:, 0]


# The others have no population, or one that is judged as one of these is.
KEPT = ["forward_gradient", "gradual_magnitude", "guided_es", "guided_nes", "snes"]


@pytest.mark.parametrize("name", slow_unless(KEPT, NAMES))
def test_step_without_valid_members_changes_nothing(name):
    inner = keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True)
    model = problems.make_model(layers=[keras.layers.BatchNormalization()])
    optimizer = problems.make(name, inner)
    problems.compiled(optimizer, model, loss=rooted)
    x, y = problems.data()
    model.train_on_batch(x, y)
    before = problems.weights_of(model)
    # A difference sees losses alone, which are finite beside the root.
    other = np.nan if name == "finite_difference" else 2
    for skipped, wrong in enumerate((y * np.nan, 0 * y + other), start=1):
        logs = model.train_on_batch(x, wrong, return_dict=True)
        assert logs["skipped_steps"] == skipped
        assert logs["nonfinite_members"] == skipped * optimizer.population_size
        assert logs["mask_flip_ratio"] == 0.0
    after = problems.weights_of(model)
    assert int(optimizer.iterations.value) == 1
    for path in before:
        if path.rsplit("/")[-1] not in COUNTERS:
            np.testing.assert_array_equal(after[path], before[path], err_msg=path)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["skipped_steps"] == 2 and np.isfinite(logs["loss"])
    assert int(optimizer.iterations.value) == 2
    (masked,) = keras_es.masked_weights(model)
    assert np.any(masked.kernel.numpy() != before[masked.kernel.path])
