"""A train step is traced once, however many steps and epochs there are."""

import pytest

from keras_es import optimizers
from tests.reference import problems


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_train_step_is_traced_once(name):
    model = problems.compiled(problems.make(name))
    traces, step = [], model.train_step

    def counting(batch):
        traces.append(batch)
        return step(batch)

    model.train_step = counting
    problems.fit(model, epochs=3)
    model.optimizer.learning_rate = 0.5
    problems.fit(model, epochs=2)
    assert len(traces) == 1
