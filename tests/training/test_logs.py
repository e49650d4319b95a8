"""Logs of steps and epochs in which members fail: the mean of nothing is nan."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es.optimizers import OpenES, Sampled, Static, Turns
from keras_es.training.logs import population_logs
from tests.training.common import compiled, data, sparse_mlp

OPTIMIZERS = {
    "one member": lambda: Static("sgd"),
    "population": lambda: OpenES("sgd", 4, turns=Turns(members=4)),
    "pure": lambda: OpenES(None, 4),
}
OF_MEMBERS = {"loss", "accuracy", "population_loss", "population_best"}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_mean_of_nothing_is_nan(make, tmp_path):
    x, y = data()
    model = compiled(sparse_mlp(), make(), metrics=["accuracy"])
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5",
        monitor="loss",
        save_best_only=True,
        save_weights_only=True,
    )
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0}
    # One step of two fails: the epoch is that of the other.
    half = np.where(np.arange(32)[:, None] < 16, np.nan, x)
    mixed = model.fit(half, y, callbacks=[best], **arguments).history
    for name in OF_MEMBERS:
        assert np.isfinite(mixed[name]).all(), name
    assert mixed["loss"] == pytest.approx(mixed["population_loss"], rel=1e-5)
    assert mixed["loss"][0] > 0 and best.best == mixed["loss"][0]
    void = model.fit(x * np.nan, y, callbacks=[best], **arguments).history
    for name in OF_MEMBERS:
        assert np.isnan(void[name]).all(), name
    assert void["skipped_steps"] == [3] and best.best == mixed["loss"][0]
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()


def test_population_logs():
    logs = population_logs(tf.constant([1.0, 3.0, np.nan]), [True, True, False])
    assert [float(v) for v in logs.values()] == [2.0, 1.0, 1.0]
    logs = population_logs(tf.constant([1.0, np.inf]), [False, False])
    assert all(np.isnan(v) for v in logs.values())


def test_other_metrics_of_sampled_examples_are_those_of_the_mean():
    x, y = data()
    optimizer = OpenES(
        None, 4, batch_mode=Sampled(4), fitness=lambda y, p: p[:, 0] * np.nan
    )
    model = compiled(sparse_mlp(), optimizer, metrics=["accuracy"])
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isnan(logs["loss"]) and np.isfinite(logs["accuracy"])
