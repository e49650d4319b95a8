"""Evolution strategies whose number of active units falls along a schedule."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers, patterns, schedules
from keras_es.optimizers import SNES, Falling, GuidedNES, OpenES, Turns
from tests.marks import slow
from tests.reference import problems

SCHEDULE = schedules.PolynomialSparsity(6, power=1.0)
UNITS = problems.INPUTS * problems.HIDDEN


def made(method, **kwargs):
    cls = optimizers.get(method) if isinstance(method, str) else method
    return cls(keras.optimizers.SGD(0.1), density=Falling(SCHEDULE), **kwargs)


@pytest.mark.parametrize("held", [1, 2])
@pytest.mark.parametrize("method", problems.POPULATIONS)
def test_masks_have_as_many_units_as_the_schedule_says(method, held):
    optimizer = made(method, population_size=2, turns=Turns(steps=held))
    model = problems.compiled(optimizer)
    (masked,) = keras_es.masked_weights(model)
    optimizer.build(model.trainable_variables)
    assert masked.kernel_mask.numpy().all()
    x, y = problems.data()
    for step in range(1, 10):
        logs = model.train_on_batch(x, y, return_dict=True)
        begun = step // held * held
        wanted = round(UNITS * (1.0 - 0.5 * min(begun / 6, 1.0)))
        mask = masked.kernel_mask.numpy()
        assert mask.sum() == wanted
        assert logs["sparsity"] == pytest.approx(1.0 - wanted / UNITS)
        scores = masked.mask_scores.numpy()
        assert scores[mask].min() >= scores[~mask].max(initial=-np.inf)
    assert masked.kernel_mask.numpy().sum() == masked.nnz


@pytest.mark.parametrize("method", [OpenES, SNES])
def test_members_are_as_dense_as_the_deployed_mask(method):
    optimizer = made(method, population_size=2, turns=Turns(steps=1))
    model = problems.compiled(optimizer)
    (masked,) = keras_es.masked_weights(model)
    for _ in range(7):
        problems.fit(model, batch_size=32)
        active = masked.kernel_mask.numpy().sum()
        for (units,) in optimizer.member_masks(0):
            assert units.numpy().sum() == active


def test_expected_density_of_bernoulli_members_follows():
    optimizer = made(GuidedNES, population_size=2, turns=Turns(steps=1))
    model = problems.compiled(optimizer)
    (masked,) = keras_es.masked_weights(model)
    for _ in range(9):
        problems.fit(model, batch_size=32)
        (p,) = optimizer.search.probabilities()
        active = masked.kernel_mask.numpy().sum()
        assert float(keras.ops.sum(p)) == pytest.approx(active, rel=0.1)


def test_groups_of_a_pattern_stay_equal():
    model = problems.make_model(None, pattern=patterns.NByM(1, 4))
    problems.compiled(made(OpenES, population_size=2, turns=Turns(steps=1)), model)
    (masked,) = keras_es.masked_weights(model)
    for _ in range(7):
        problems.fit(model, batch_size=32)
        groups = masked.kernel_mask.numpy().reshape(-1, 4, problems.HIDDEN).sum(1)
        assert groups.min() == groups.max()
    assert groups.max() == 1


def test_generation_without_a_valid_member_is_made_up_for():
    model = problems.compiled(made(OpenES, population_size=2, turns=Turns(steps=1)))
    x, y = problems.data()
    sparsity = [
        model.train_on_batch(x, y * factor, return_dict=True)["sparsity"]
        for factor in (1.0, np.nan, np.nan, 1.0)
    ]
    assert sparsity[0] == sparsity[1] == sparsity[2] < sparsity[3]
    assert sparsity[3] == pytest.approx(0.5 * 4 / 6, abs=0.01)


@pytest.mark.parametrize("jit_compile", [False, slow(True)])
def test_training_goes_on_to_the_bit(tmp_path, jit_compile):
    loaded = problems.assert_goes_on_to_the_bit(
        tmp_path,
        lambda: made(OpenES, population_size=2, turns=Turns(steps=2)),
        jit_compile=jit_compile,
    )
    assert loaded.optimizer.sparsity_schedule.end_step == 6


def test_wrong_schedules_are_refused():
    with pytest.raises(ValueError, match="`schedule` must be .*Received"):
        OpenES("adam", density=Falling(schedules.ConstantUpdates()))
    with pytest.raises(ValueError, match="inner_optimizer=None masks are .*Received"):
        OpenES(None, density=Falling(SCHEDULE))
    layer = keras_es.layers.BlockSparseDense(8, sparsity=0.5, block_size=(4, 4))
    model = keras_es.ESSequential([keras.Input((16,)), layer])
    with pytest.raises(ValueError, match="begins dense by its schedule.*Received"):
        made(OpenES).build(model.trainable_variables)
