"""A generation that is spread over steps: members in turn, masks held."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.optimizers import SNES, BernoulliNES, GuidedNES, OpenES, Turns
from tests.marks import slow, slow_unless
from tests.reference import problems
from tests.training.common import compiled, cross_entropy, data, mlp, sgd, sparse_mlp

METHODS = {"snes": SNES, "bernoulli_nes": BernoulliNES, "guided_nes": GuidedNES}


def frozen_weights(cls, **kwargs):
    """A model whose weights stay, on one repeated batch: turns change nothing else."""
    keras.utils.set_random_seed(0)
    inner = keras.optimizers.SGD(0.0)
    optimizer = cls(inner, 8, "full", sigma=0.3, seed=2, **kwargs)
    model = keras_es.sparsify(mlp(), 0.5, seed=0)
    return compiled(model, optimizer)


def after_generations(model, generations):
    x, y = data()
    model.optimizer.build(model.trainable_variables)
    turns = model.optimizer.taking_turns
    for _ in range(generations * (1 if turns is None else turns.steps)):
        model.train_on_batch(x, y)
    return [m.mask_scores.numpy() for m in keras_es.masked_weights(model)]


SPLITS = [(2, 1), (2, 3), (4, 1), (4, 2), (8, 2)]
KEPT = [(2, 3, False), (4, 2, True), (8, 2, False)]
ALL = [(*split, jit_compile) for split in SPLITS for jit_compile in (False, True)]
REST = [case for case in ALL if case[2] and case not in KEPT]


@pytest.mark.parametrize("members, held, jit_compile", slow_unless(KEPT, ALL, REST))
def test_turns_are_one_generation_of_all_members(members, held, jit_compile):
    want = after_generations(frozen_weights(SNES, turns=Turns(8)), 3)
    model = frozen_weights(SNES, turns=Turns(members, held))
    model.compile(model.optimizer, loss=cross_entropy(), jit_compile=jit_compile)
    got = after_generations(model, 3)
    assert model.optimizer.taking_turns.steps == 8 // members * held
    assert int(model.optimizer.generation) == 3
    for a, b in zip(want, got):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_turns_are_one_generation_for_every_method(name):
    want = after_generations(frozen_weights(METHODS[name], turns=Turns(8, 1)), 4)
    got = after_generations(frozen_weights(METHODS[name], turns=Turns(2, 2)), 4)
    for a, b in zip(want, got):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


def test_scores_and_deployed_masks_move_at_the_end_of_a_generation():
    model = compiled(sparse_mlp(), OpenES(sgd(), 4, turns=Turns(steps=2)))
    x, y = data()
    model.train_on_batch(x, y)
    assert model.optimizer.taking_turns.steps == 4
    moves = []
    for _ in range(11):
        before = [m.mask_scores.numpy() for m in keras_es.masked_weights(model)]
        model.train_on_batch(x, y)
        after = [m.mask_scores.numpy() for m in keras_es.masked_weights(model)]
        moves.append(any(np.any(a != b) for a, b in zip(before, after)))
        for masked in keras_es.masked_weights(model):
            deployed = masked.decode(masked.mask_scores.value)
            np.testing.assert_array_equal(masked.kernel_mask, masked.expand(deployed))
    assert moves == [False, False, True, False] * 2 + [False, False, True]


@pytest.mark.parametrize("stop", [slow(1), slow(2), 3, slow(5)])
def test_resume_in_the_middle_of_a_generation_is_exact(stop, tmp_path):
    x, y = data()

    def steps(model, count):
        for _ in range(count):
            model.train_on_batch(x, y)
        return [v.numpy() for v in model.weights + model.optimizer.variables]

    keras.utils.set_random_seed(0)
    model = compiled(sparse_mlp(), GuidedNES(sgd(), 4, turns=Turns(steps=2)))
    steps(model, stop)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for a, b in zip(steps(model, 9), steps(loaded, 9), strict=True):
        np.testing.assert_array_equal(b, a)


def test_held_masks_are_those_of_the_pair():
    optimizer = SNES("sgd", 4, turns=Turns(steps=3))
    model = problems.compiled(optimizer)
    x, y = problems.data()
    for step in range(6):
        pair = step // 3
        want = optimizer.member_masks(pair) if model.built and step else None
        model.train_on_batch(x, y)
        if want is None or step == 5:
            continue
        got = optimizer.taking_turns.masks(0)
        for a, b in zip(want, got):
            np.testing.assert_array_equal(b[0], a[0])


def test_a_failed_member_does_not_spoil_its_generation():
    x, y = data()
    model = compiled(sparse_mlp(), SNES(sgd(), 4, turns=Turns(2, 1)))
    model.train_on_batch(np.full_like(x, np.nan), y)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["nonfinite_members"] == 2 and logs["skipped_steps"] == 1
    assert int(model.optimizer.generation) == 1
    for variable in model.weights + model.optimizer.variables:
        assert np.all(np.isfinite(np.asarray(variable, "float32"))), variable.path


def test_default_turns_where_sampling_costs_more_than_the_step():
    fine = compiled(sparse_mlp(), SNES("adam"))
    fine.optimizer.build(fine.trainable_variables)
    assert fine.optimizer.taking_turns.pairs_in_step == 1
    assert fine.optimizer.taking_turns.steps_per_pair > 1
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    block = keras_es.patterns.Block(8, 8)
    coarse = compiled(keras_es.sparsify(model, 0.5, pattern=block), SNES("adam"))
    coarse.optimizer.build(coarse.trainable_variables)
    assert coarse.optimizer.taking_turns is None


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"members": 3}, "even number .* divides population_size=8.*members=3"),
        ({"members": 6}, "even number .* divides population_size=8.*members=6"),
        ({"members": 0}, "integer of at least 2.*members=0"),
        ({"steps": 0}, "integer of at least 1.*steps=0"),
        ({"steps": 1.5}, "integer of at least 1.*steps=1.5"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SNES("adam", 8, turns=Turns(**kwargs))


def test_config_keeps_what_was_asked_for():
    config = SNES("adam", 8, turns=Turns(4, 2)).get_config()
    assert config["turns"]["config"] == {"members": 4, "steps": 2}
    assert SNES.from_config(config).turns == Turns(4, 2)
    assert SNES("adam").get_config()["turns"] is None
