"""What others plug in: callbacks of Keras, scikit-learn, KerasTuner, TensorBoard."""

import csv
import inspect

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import keras_es
from keras_es.optimizers import RigL, Static

X = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int32")


def sparse_model(
    units=8, rate=0.05, optimizer=None, loss="sparse_categorical_crossentropy"
):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(units, "tanh")(inputs)
    outputs = keras.layers.Dense(2, "softmax")(hidden)
    sparse = keras_es.sparsify(keras.Model(inputs, outputs), 0.5)
    sparse.compile(
        Static(keras.optimizers.SGD(rate)) if optimizer is None else optimizer,
        loss,
        metrics=["accuracy"],
        jit_compile=False,
    )
    return sparse


ELSEWHERE = {
    "Callback": "the base class",
    "CallbackList": "no callback: `fit` makes it",
    "MonitorCallback": "a base class",
    "OrbaxCheckpoint": "needs orbax, and JAX",
    "RemoteMonitor": "needs a server",
    "TensorBoard": "needs tensorboard; has a test of its own",
}


def test_all_callbacks_of_keras_run_with_masks_that_move(tmp_path):
    seen = []
    callbacks = [
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        keras.callbacks.History(),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda e, logs: seen.append(e)),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 * 0.5**epoch),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        keras.callbacks.ProgbarLogger(),
        keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=9.0),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.TerminateOnNaN(),
    ]
    known = {n for n, _ in inspect.getmembers(keras.callbacks, inspect.isclass)}
    used = {type(callback).__name__ for callback in callbacks}
    assert known - {*used, *ELSEWHERE} == set()

    sgd = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5)
    updates = keras_es.schedules.ConstantUpdates(update_every=2)
    moving = RigL(sgd, update_schedule=updates)
    model = sparse_model(optimizer=moving)
    model.fit(
        X, Y, batch_size=16, epochs=3, validation_split=0.25, callbacks=callbacks,
        verbose=0,
    )  # fmt: skip
    assert seen == [0, 1, 2]
    for masked in keras_es.masked_weights(model):
        assert masked.deployed_nnz() == masked.nnz == masked.size // 2
    # Both callbacks of the learning rate reach the optimizer of the weights.
    assert float(sgd.learning_rate) == pytest.approx(0.1 * 0.25 * 0.5)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["sparsity"]) for row in rows] == [0.5] * 3
    saved = keras.saving.load_model(tmp_path / "3.keras")
    assert type(saved.optimizer) is RigL
    np.testing.assert_allclose(saved.evaluate(X, Y, verbose=0)[1], 1.0, atol=0.5)


def test_scikit_learn_wraps_a_sparse_model():
    def build(X, y, units=8):
        return sparse_model(units, loss="categorical_crossentropy")

    wrapped = keras.wrappers.SKLearnClassifier(
        build, model_kwargs={"units": 4}, fit_kwargs={"epochs": 8, "verbose": 0}
    )
    pipeline = make_pipeline(StandardScaler(), wrapped)
    scores = cross_val_score(clone(pipeline), X, Y, cv=2, error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()
    # A compiled functional model is copied with its masks.
    model = sparse_model(rate=0.5, loss="categorical_crossentropy")
    wrapped = keras.wrappers.SKLearnClassifier(
        model, fit_kwargs={"epochs": 8, "verbose": 0}
    )
    wrapped.fit(X, Y)
    assert wrapped.model_ is not model and wrapped.score(X, Y) > 0.7
    for fitted, own in zip(
        keras_es.masked_weights(wrapped.model_), keras_es.masked_weights(model)
    ):
        np.testing.assert_array_equal(
            fitted.kernel_mask.numpy(), own.kernel_mask.numpy()
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner's imports
# It loads weights before any optimizer, of Keras or ours, has its variables.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_keras_tuner_searches_sparsity_and_method(tmp_path):
    tuner_of_keras = pytest.importorskip("keras_tuner")

    def build(hp):
        sparsity = hp.Choice("sparsity", [0.25, 0.5])
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        sparse = keras_es.sparsify(model, sparsity)
        method = hp.Choice("method", ["static", "snes"])
        optimizer = keras_es.optimizers.for_run(method, "sgd", sparse, 8)
        loss = "sparse_categorical_crossentropy"
        sparse.compile(optimizer, loss, metrics=["accuracy"], run_eagerly=True)
        return sparse

    tuner = tuner_of_keras.GridSearch(
        build, objective="val_accuracy", directory=tmp_path, project_name="masks"
    )
    tuner.search(X, Y, validation_split=0.5, batch_size=24, verbose=0)
    assert len(tuner.oracle.trials) == 4
    best = tuner.get_best_models()[0]
    wanted = tuner.get_best_hyperparameters()[0].get("sparsity")
    assert keras_es.sparsity_report(best).sparsity == wanted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's imports
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensorboard_and_its_hyperparameters(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api, plugin_data_pb2

    model = sparse_model()
    chosen = {"sparsity": 0.5, "method": "static"}
    callbacks = [
        keras.callbacks.TensorBoard(tmp_path, histogram_freq=1),
        api.KerasCallback(str(tmp_path), chosen),
    ]
    model.fit(X, Y, validation_split=0.25, verbose=0, callbacks=callbacks)
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    assert {"epoch_loss", "epoch_sparsity"} <= set(events.Tags()["tensors"])
    events = EventAccumulator(str(tmp_path)).Reload()
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    said = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert said.hparams["sparsity"].number_value == 0.5
    assert said.hparams["method"].string_value == "static"


@pytest.fixture
def distribution():
    devices = keras.distribution.list_devices("cpu")
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    yield
    keras.distribution.set_distribution(None)


def test_keras_distribution_is_refused_by_compile(distribution):
    with pytest.raises(ValueError, match=r"MirroredStrategy.*DataParallel"):
        sparse_model()


def test_keras_distribution_is_refused_by_fit(request):
    model = sparse_model()
    request.getfixturevalue("distribution")
    with pytest.raises(ValueError, match=r"MirroredStrategy.*DataParallel"):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"MirroredStrategy.*DataParallel"):
        model.train_on_batch(X, Y)
