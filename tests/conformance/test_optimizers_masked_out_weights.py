"""What no member of a step used keeps its value and its slots to the bit."""

import itertools

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers
from tests.marks import slow_unless
from tests.reference import problems

INNER = {
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adamw with ema": lambda: keras.optimizers.AdamW(
        0.01, weight_decay=0.5, amsgrad=True, use_ema=True
    ),
}


def used(optimizer):
    """Union of the masks of all members of the coming step."""
    (masked,) = optimizer.masked_weights
    union = np.zeros(masked.shape, bool)
    for pair in range(optimizer.pairs):
        for (units,) in optimizer.member_masks(pair):
            if units is None:
                union |= masked.kernel_mask.numpy()
            else:
                union |= np.array(masked.expand(units))
    return union


# All four slots of a weight are handled by the same code for all methods.
KINDS = ("guided_es", "snes", "finite_difference", "gradual_magnitude")
KEPT = [*((name, "momentum") for name in KINDS)]
KEPT += [("guided_nes", "adamw with ema"), ("rigl", "adamw with ema")]
ALL = [*itertools.product(sorted(optimizers.OPTIMIZERS), INNER)]
REST = [case for case in ALL if case[1] != "momentum" and case not in KEPT]


@pytest.mark.parametrize("name, inner", slow_unless(KEPT, ALL, REST))
def test_unused_weights_and_their_slots_rest(name, inner):
    # A large noise, so that weights with momentum leave the masks.
    kwargs = {"population_size": 2} | ({} if name == "static" else {"sigma": 1.5})
    kwargs["masked_out"] = "rest"
    optimizer = problems.make(name, INNER[inner](), **kwargs)
    model = problems.compiled(optimizer, problems.make_model(0.8))
    x, y = problems.data()
    (masked,) = keras_es.masked_weights(model)
    problems.fit(model, epochs=2)
    slots = optimizer.inner.slots[id(masked.kernel)]
    assert len(slots) == (1 if inner == "momentum" else 4)
    for _ in range(4):
        union = used(optimizer)
        before = [v.numpy() for v in (masked.kernel, *slots)]
        model.train_on_batch(x, y)
        after = [v.numpy() for v in (masked.kernel, *slots)]
        assert union.any() and not union.all()
        # Weights that come back may start anew, which other tests look at.
        resting = ~union
        if name in problems.FRESH_SLOTS:
            resting &= ~masked.kernel_mask.numpy()
        for old, new in zip(before, after):
            np.testing.assert_array_equal(new[resting], old[resting])
        moved = after[0][union] != before[0][union]
        assert moved.mean() > 0.9


@pytest.mark.parametrize(
    "name",
    slow_unless(["rigl", "guided_es", "guided_nes"], sorted(optimizers.OPTIMIZERS)),
)
def test_moving_averages_of_weights_are_not_drawn_to_zero(name):
    # With constant weights their average is the weights, whenever they entered.
    inner = keras.optimizers.SGD(0.0, use_ema=True, ema_momentum=0.5)
    model = problems.compiled(problems.make(name, inner), problems.make_model(0.8))
    (masked,) = keras_es.masked_weights(model)
    before = masked.kernel.numpy()
    problems.fit(model, epochs=4)
    after = masked.kernel.numpy()
    if optimizers.get(name).grows_from_zero:
        grown = after == 0
        assert grown.any() and not grown.all()
        before[grown] = 0.0
    np.testing.assert_allclose(after, before, rtol=1e-6)
