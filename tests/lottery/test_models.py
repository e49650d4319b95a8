"""Tickets of models of many kinds: composites, Dropout, frozen and adapted layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import lottery
from keras_es.callbacks import TrainingStopped
from keras_es.lottery import methods
from keras_es.optimizers import SNES
from keras_es.runs.errors import RunError
from tests.lottery.common import DATA, PLAIN, build, find
from tests.lottery.test_find import Stop

X, Y = DATA
SGD = {"strategy": "sgd", "score": "magnitude", "rounds": 1, "steps": 2}


@keras.saving.register_keras_serializable(package="tests.lottery")
class Nameless(keras.layers.Layer):
    """A composite whose parts have the names that Keras counts up."""

    def __init__(self, alike=False, **kwargs):
        super().__init__(**kwargs)
        self.alike = alike
        name = "part" if alike else None
        self.first = keras.layers.Dense(4, "tanh", name=name)
        self.second = keras.layers.Dense(3, name=name)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "alike": self.alike}


def composite(alike=False):
    layers = [keras.Input((6,)), Nameless(alike, name="block"), keras.layers.Softmax()]
    return keras.Sequential(layers)


def test_parts_without_names_have_tickets_that_go_on(tmp_path):
    ticket = find(network=composite, folder=tmp_path, **SGD)
    assert [row["weights"] for row in ticket.history] == [36, 18]
    again = find(network=composite, folder=tmp_path, **SGD)
    assert [*again.masks] == [*ticket.masks]
    np.testing.assert_array_equal(ticket.model()(X), again.model()(X))
    with pytest.raises(ValueError, match="different names.*Received: 2 weights of 1"):
        lottery.Ticket.dense(composite(alike=True))


def dropout():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, "tanh", name="hidden"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(3, "softmax", name="out"),
        ]
    )


def test_dropout_goes_on_to_the_bit(tmp_path):
    whole = find(network=dropout, **SGD)
    with pytest.raises(TrainingStopped):
        find(network=dropout, folder=tmp_path, callbacks=[Stop(1)], **SGD)
    resumed = find(network=dropout, folder=tmp_path, **SGD)
    assert resumed.history[1]["loss"] == whole.history[1]["loss"]
    for name, mask in whole.masks.items():
        np.testing.assert_array_equal(mask, resumed.masks[name])


def nameless():
    layers = [keras.Input((6,)), keras.layers.Dense(5, "tanh")]
    return keras.Sequential([*layers, keras.layers.Dense(3, "softmax")])


def test_random_scores_are_of_places_and_not_of_names():
    first, second = (
        find(network=nameless, **SGD | {"score": "random", "steps": 1}) for _ in "ab"
    )
    for a, b in zip(first.masks.values(), second.masks.values()):
        np.testing.assert_array_equal(a, b)


def test_frozen_layers_are_left_alone_and_adapted_ones_kept():
    normalize = keras.layers.Normalization()
    normalize.adapt(3.0 * X + 1.0)
    model = keras.Sequential([keras.Input((6,)), normalize, *build().layers])
    model.get_layer("hidden").trainable = False
    ticket = lottery.Ticket.dense(model)
    assert [*ticket.masks] == ["out/kernel"]
    for copy in (ticket.plain(), ticket.model()):
        np.testing.assert_allclose(copy(X), model(X), rtol=1e-5)
    anew = ticket.control("reinitialized", 1).plain()
    same = [np.array_equal(a, b) for a, b in zip(anew.weights, model.weights)]
    kernel = [v.path.endswith("out/kernel") for v in model.weights]
    assert same == [not k for k in kernel]
    with pytest.raises(ValueError, match="that can be trained.*all are frozen"):
        model.trainable = False
        lottery.flatness(model, DATA, (0.0,), 1, loss="sparse_categorical_crossentropy")


def test_a_kernel_that_is_drawn_the_same_is_told():
    layers = [keras.Input((6,)), keras.layers.Dense(5, name="hidden")]
    layers.append(keras.layers.Dense(3, kernel_initializer=keras.initializers.
                                     GlorotUniform(seed=3), name="out"))  # fmt: skip
    ticket = lottery.Ticket.dense(keras.Sequential(layers))
    with pytest.raises(ValueError, match=r"again.*Received: \[.*out/kernel"):
        ticket.control("reinitialized", 1)


def test_a_model_that_no_config_makes_again_is_refused():
    layers = [keras.Input((6,)), keras.layers.Dense(3, name="out")]
    layers.append(keras.layers.Lambda(lambda x: 2.0 * x))
    with pytest.raises(ValueError, match="its config makes again.*Received: model="):
        lottery.Ticket.dense(keras.Sequential(layers))


@pytest.mark.parametrize(
    "masks",
    [
        [True], {"hidden/kernel": np.ones((6, 5), bool)}, {"more": np.ones(3, bool)},
        {"out/kernel": np.ones((3, 5), bool)}, {"out/kernel": np.full((5, 3), np.nan)},
        {"out/kernel": np.zeros((5, 3), bool)}, {"out/kernel": True},
    ],
    ids=["list", "missing", "unknown", "shape", "type", "empty", "scalar"],
)  # fmt: skip
def test_masks_that_are_none_are_refused(masks):
    ticket = lottery.Ticket.dense(build())
    if isinstance(masks, dict) and "hidden/kernel" not in masks:
        masks = {**ticket.masks, **masks}
    with pytest.raises(ValueError, match="of its shape, with at least one.*Received"):
        ticket.pruned(masks)


def test_another_network_of_the_same_shapes_is_refused(tmp_path):
    find(folder=tmp_path, **SGD)

    def relu():
        model = build()
        model.get_layer("hidden").activation = keras.activations.relu
        return model

    with pytest.raises(RunError, match="is of another network"):
        find(network=relu, folder=tmp_path, **SGD)
    with pytest.raises(RunError, match="measured without `validation_data`"):
        find(folder=tmp_path, validation_data=DATA, **SGD)


def test_fewer_rounds_than_there_are_have_no_values_to_give_back(tmp_path):
    given = SGD | {"rewind": "learning_rate", "folder": tmp_path}
    find(**given | {"rounds": 2})
    with pytest.raises(RunError, match="has 2 rounds.*Received: rounds=1"):
        find(**given)


def off_by(y, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y, y_pred) + 0.5


def test_a_loss_of_ones_own_goes_on(tmp_path):
    with pytest.raises(TrainingStopped):
        find(folder=tmp_path, loss=off_by, callbacks=[Stop(1)], **SGD)
    ticket = find(folder=tmp_path, loss=off_by, **SGD)
    assert [row["weights"] for row in ticket.history] == [45, 22]
    with pytest.raises(ValueError, match="function with a name"):
        find(folder=tmp_path, loss=lambda y, y_pred: y_pred, **SGD)


def test_schedules_go_on_where_values_were_rewound_to_and_counts_do_not():
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    optimizer = methods.fresh(methods.checked(keras.optimizers.Adam(rate)), 1, 3)
    inner = optimizer.inner_optimizer
    assert float(inner.learning_rate) == pytest.approx(0.1 / 8)
    assert int(inner.iterations) == 0  # by which Adam corrects its moments
    again = type(optimizer).from_config(optimizer.get_config()).inner_optimizer
    assert float(again.learning_rate) == pytest.approx(0.1 / 8)
    strategy = methods.fresh(SNES(None, 4, sigma=0.2, mean_learning_rate=rate), 1, 3)
    assert float(strategy.mean_learning_rate(0)) == pytest.approx(0.1 / 8)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate))
    inner = methods.fresh(methods.checked(scaled), 1, 3).inner_optimizer
    assert float(inner.inner_optimizer.learning_rate) == pytest.approx(0.1 / 8)


def test_weights_of_losses_are_those_that_the_model_was_compiled_with():
    x = keras.Input((6,))
    model = keras.Model(x, [keras.layers.Dense(1)(x), keras.layers.Dense(1)(x)])
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 0.0], **PLAIN)
    y = np.zeros((32, 1), "float32"), np.full((32, 1), 10.0, "float32")
    wanted = model.evaluate(X, list(y), verbose=0, return_dict=True)["loss"]
    found = lottery.connectivity(model, model, (X, y), 3, metrics=None)
    np.testing.assert_allclose(found.losses, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compile_arguments": {"steps_per_execution": 2}, "steps": 3},
         r"`steps` must be a multiple.*steps_per_execution=2"),
        ({"compile_arguments": {"steps_per_execution": 2}, "rewind": 1},
         r"`rewind` must be a multiple"),
        ({"compile_arguments": {"foo": 1}}, r"`compile` must get.*\['foo'\]"),
        ({"foo": 1}, r"`fit` must get arguments that it takes.*\['foo'\]"),
        ({"class_weight": [1.0, 2.0]}, "`class_weight` must be None or a dict"),
        ({"class_weight": {0: 2.0}, "score": "snip"}, "without class weights"),
        ({"checkpoint_every": 1}, "`checkpoint_every` needs a `folder`"),
        ({"validation_data": (X, Y[:5])}, "as many examples in each array"),
        ({"folder": ""}, "`folder` must be a path"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)  # fmt: skip
def test_arguments_that_do_not_go_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        find(**{"strategy": "sgd", "score": "magnitude", **change})
    assert "Received: " in str(error.value)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="it is not a folder"):
        find(folder=tmp_path / "file", **SGD)


def test_losses_that_are_not_finite_end_the_rounds():
    with pytest.raises(RunError, match="round 0 ended with a loss of nan"):
        find(data=(np.full_like(X, np.nan), Y), **SGD)


def test_tickets_are_found_outside_of_the_main_thread(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        ticket = pool.submit(find, folder=tmp_path, **SGD).result()
    assert ticket.round == 1


def test_a_metric_with_a_number_for_each_class_is_a_list(tmp_path):
    one_hot = keras.utils.to_categorical(Y, 3)
    ticket = find(
        data=(X, one_hot), loss="categorical_crossentropy",
        metrics=[keras.metrics.F1Score(name="f1")], validation_data=(X, one_hot),
        folder=tmp_path, **SGD,
    )  # fmt: skip
    assert [len(row["f1"]) for row in ticket.history] == [3, 3]
    assert len(ticket.history[0]["val_f1"]) == 3


def test_tickets_of_bfloat16_are_the_same_when_loaded(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        ticket = lottery.Ticket.dense(build())
    finally:
        keras.config.set_dtype_policy("float32")
    ticket.save(tmp_path / "one.npz")
    loaded = lottery.Ticket.load(tmp_path / "one.npz")
    from keras_es.lottery.data import digest

    assert digest(ticket.values) == digest(loaded.values)
    assert ticket.values[0].dtype == tf.bfloat16.as_numpy_dtype
