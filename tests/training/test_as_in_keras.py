"""What `fit` of plain Keras does, the train step of populations does as well."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from tests.marks import slow_unless
from tests.training.common import (
    MASK_OPTIMIZERS,
    cross_entropy,
    data,
    mlp,
    trains_as_keras,
)

both = pytest.mark.parametrize("optimizer", slow_unless(["snes"], MASK_OPTIMIZERS))
quiet = {"verbose": 0, "epochs": 2, "shuffle": False}


def fit_arrays(**kwargs):
    x, y = data()
    return lambda model: model.fit(x, y, batch_size=8, **{**quiet, **kwargs})


@both
def test_losses_and_metrics(optimizer):
    trains_as_keras(mlp, optimizer, fit_arrays(), metrics=["accuracy"])


@both
def test_batch_normalization(optimizer):
    def build():
        return mlp(keras.layers.BatchNormalization(momentum=0.5))

    plain, masked, _ = trains_as_keras(build, optimizer, fit_arrays())
    assert not np.allclose(plain.layers[1].moving_mean, 0)


def test_dropout_of_the_deployed_mask():
    # Of a population the later pairs have noise of their own, see test_members.
    plain, masked, _ = trains_as_keras(
        lambda: mlp(keras.layers.Dropout(0.5, seed=3)), "static", fit_arrays()
    )
    states = [m.layers[1].seed_generator.state.numpy() for m in (plain, masked)]
    np.testing.assert_array_equal(*states)


@both
def test_regularizers(optimizer):
    def build():
        return mlp(kernel_regularizer="l2", bias_regularizer="l1")

    trains_as_keras(build, optimizer, fit_arrays())


@keras.saving.register_keras_serializable("tests")
class Sparing(keras.layers.Layer):
    """Adds a loss of its inputs, as activity regularizers do."""

    def call(self, x):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
        return x


def test_losses_added_by_layers():
    def build():
        return mlp(Sparing(), activity_regularizer="l2")

    trains_as_keras(build, "snes", fit_arrays())


def test_sample_weight():
    weight = np.random.default_rng(0).uniform(0.0, 2.0, 32).astype("float32")
    fit = fit_arrays(sample_weight=weight)
    trains_as_keras(
        mlp, "snes", fit, metrics=["accuracy"], weighted_metrics=["accuracy"]
    )


def test_class_weight():
    fit = fit_arrays(class_weight={0: 0.2, 1: 1.0, 2: 3.0})
    trains_as_keras(mlp, "snes", fit, weighted_metrics=["accuracy"])


def test_validation_split():
    fit = fit_arrays(validation_split=0.25)
    *_, history = trains_as_keras(mlp, "snes", fit, metrics=["accuracy"])
    assert "val_accuracy" in history


def two_headed(as_dict):
    """Two inputs, two outputs, named or in lists."""
    a, b = keras.Input((6,), name="a"), keras.Input((4,), name="b")
    hidden = keras.layers.Concatenate()([a, keras.layers.Dense(4, name="of_b")(b)])
    kind = keras.layers.Dense(3, name="kind")(hidden)
    size = keras.layers.Dense(1, name="size")(hidden)
    if as_dict:
        return keras.Model({"a": a, "b": b}, {"kind": kind, "size": size})
    return keras.Model([a, b], [kind, size])


def two_headed_data():
    a, kind = data()
    b, _ = data(features=4, seed=1)
    return a, b, kind, a.sum(axis=1, keepdims=True)


@both
def test_dicts_of_inputs_and_outputs(optimizer):
    a, b, kind, size = two_headed_data()
    weight = {"kind": np.linspace(0, 1, 32), "size": np.linspace(1, 2, 32)}
    *_, history = trains_as_keras(
        lambda: two_headed(as_dict=True),
        optimizer,
        lambda model: model.fit(
            {"a": a, "b": b}, {"kind": kind, "size": size}, 8, sample_weight=weight,
            **quiet,
        ),
        loss={"kind": cross_entropy(), "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.1},
        metrics={"kind": ["accuracy"], "size": ["mae"]},
        weighted_metrics={"size": ["mae"]},
    )  # fmt: skip
    assert {"loss", "kind_loss", "size_loss", "kind_accuracy"} <= set(history)


def test_lists_of_inputs_and_outputs():
    a, b, kind, size = two_headed_data()
    *_, history = trains_as_keras(
        lambda: two_headed(as_dict=False),
        "snes",
        lambda model: model.fit([a, b], [kind, size], 8, **quiet),
        loss=[cross_entropy(), "mse"],
        loss_weights=[1.0, 0.1],
        metrics=[["accuracy"], ["mae"]],
    )
    assert {"loss", "kind_loss", "size_loss", "kind_accuracy"} <= set(history)


def test_model_without_targets():
    # All of the loss is added by layers.
    x, _ = data()
    model = keras_es.sparsify(mlp(Sparing()), sparsity=0.5)
    model.compile(MASK_OPTIMIZERS["snes"]("sgd"), jit_compile=False)
    history = model.fit(x, batch_size=8, **quiet).history
    assert history["loss"][1] < history["loss"][0]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        x, y = data()
        return x[8 * index : 8 * index + 8], y[8 * index : 8 * index + 8]


def generator():
    while True:
        yield from (Batches()[i] for i in range(4))


@pytest.mark.parametrize(
    "fit",
    [
        lambda m: m.fit(tf.data.Dataset.from_tensor_slices(data()).batch(8), **quiet),
        lambda m: m.fit(generator(), steps_per_epoch=4, **quiet),
        lambda m: m.fit(Batches(), **quiet),
    ],
    ids=["tf.data", "generator", "PyDataset"],
)
def test_sources_of_data(fit):
    trains_as_keras(mlp, "snes", fit)


@both
def test_last_partial_batch(optimizer):
    x, y = data(n=18)
    trains_as_keras(mlp, optimizer, lambda m: m.fit(x, y, 8, **quiet))


def test_steps_per_execution():
    trains_as_keras(mlp, "snes", fit_arrays(), steps_per_execution=3)


def test_run_eagerly():
    trains_as_keras(
        lambda: mlp(keras.layers.BatchNormalization()),
        "snes",
        fit_arrays(epochs=1),
        run_eagerly=True,
    )


def test_train_on_batch():
    x, y = data()

    class Recorded:
        def __init__(self, logs):
            self.history = {k: [log[k] for log in logs] for k in logs[0]}

    def fit(model):
        weight, kinds = np.linspace(0, 1, 8), {0: 1.0, 1: 2.0, 2: 0.5}
        logs = [
            model.train_on_batch(x[:8], y[:8], weight, return_dict=True),
            model.train_on_batch(x[8:], y[8:], class_weight=kinds, return_dict=True),
        ]
        assert isinstance(logs[0]["loss"], (float, np.floating))
        return Recorded(logs)

    trains_as_keras(mlp, "snes", fit, metrics=["accuracy"])


def test_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    plain, masked, _ = trains_as_keras(mlp, "snes", fit_arrays(), rtol=3e-2)
    assert {w.dtype for w in masked.trainable_variables} == {"float32"}


@pytest.mark.parametrize(
    "inner",
    [
        lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), clipnorm=0.1
        ),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
        lambda: keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5),
        lambda: keras.optimizers.SGD(
            0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
        ),
    ],
    ids=["schedule and clipping", "weight decay", "ema", "ema overwrite"],
)
def test_options_of_the_inner_optimizer(inner, monkeypatch):
    monkeypatch.setattr("tests.training.common.sgd", inner)
    trains_as_keras(mlp, "snes", fit_arrays())


def test_under_xla():
    # One pass through everything that has state, compiled.
    def build():
        return mlp(keras.layers.BatchNormalization(), Sparing())

    plain, masked, _ = trains_as_keras(
        build, "snes", fit_arrays(), metrics=["accuracy"], jit_compile=True
    )
    assert masked.jit_compile
