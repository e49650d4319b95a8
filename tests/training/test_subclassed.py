"""Subclassed models: `ESMixin` before `keras.Model`."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.optimizers import SNES
from tests.training.common import compiled, cross_entropy, data, sgd


@keras.saving.register_keras_serializable("tests")
class Masked(keras_es.ESMixin, keras.Model):
    """Makes its masked layers itself."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras_es.layers.MaskedDense(
            units, activation="tanh", sparsity=0.5, mask_seed=1
        )
        self.dropout = keras.layers.Dropout(0.2, seed=1)
        self.out = keras.layers.Dense(3)

    def call(self, x, training=False):
        return self.out(self.dropout(self.hidden(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class Plain(keras_es.ESMixin, keras.Model):
    """Has plain layers, which `sparsify` swaps."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = [keras.layers.Dense(units, "tanh") for _ in range(2)]
        self.out = keras.layers.Dense(3)

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class OwnLoss(Masked):
    """The loss is its own, and so is a metric."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.largest = keras.metrics.Mean(name="largest")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        self.largest.update_state(keras.ops.max(y_pred))
        return cross_entropy()(y, y_pred) + 0.1 * keras.ops.mean(y_pred**2)


def sparsified():
    plain = Plain()
    plain(data()[0])
    return keras_es.sparsify(plain, 0.75, seed=0)


def learns(model):
    x, _ = data()
    y = x[:, :3].argmax(axis=1)
    before = model.evaluate(x, y, verbose=0)
    history = model.fit(x, y, epochs=40, verbose=0).history
    assert model.evaluate(x, y, verbose=0) < 0.9 * before
    return history


def test_own_masked_layers_train():
    history = learns(compiled(Masked(), SNES(keras.optimizers.Adam(0.02), 4)))
    assert history["sparsity"][-1] == pytest.approx(0.5)


def test_own_masked_layers_under_xla():
    model = Masked()
    model.compile(SNES(sgd(), 4), cross_entropy())
    history = model.fit(*data(), batch_size=8, epochs=2, verbose=0).history
    assert model.jit_compile and np.isfinite(history["loss"]).all()


def test_loss_and_metrics_of_the_users_own():
    model = compiled(OwnLoss(), SNES("sgd", 2, "full"))
    x, y = data()
    logs = model.train_on_batch(x, y, return_dict=True)
    plain = cross_entropy()(y, model(x))
    assert np.isfinite(logs["largest"]) and logs["largest"] != 0
    # Masks differ by member, so only roughly; the metric moved, the loss is its own.
    assert logs["loss"] == pytest.approx(logs["population_loss"], rel=1e-5)
    assert abs(logs["loss"] - float(plain)) < 1.0
    assert "loss" in model.evaluate(x, y, verbose=0, return_dict=True)


def everything(model):
    seen = {}
    for variable in model.variables + model.optimizer.variables:
        seen.setdefault(id(variable), variable.numpy())
    return list(seen.values())


@pytest.mark.parametrize("make", [Masked, OwnLoss, sparsified])
def test_survives_save_and_load(make, tmp_path):
    x, y = data()
    model = compiled(make(), SNES(keras.optimizers.Adam(0.01), 4))
    model.fit(x, y, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    want, got = (keras_es.masked_weights(m) for m in (model, loaded))
    assert [(m.attribute, m.nnz) for m in got] == [(m.attribute, m.nnz) for m in want]
    np.testing.assert_array_equal(loaded(x), model(x))
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(everything(model), everything(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_swapped_layers_of_a_subclassed_model():
    model = sparsified()
    assert isinstance(model, Plain)
    assert len(keras_es.masked_weights(model)) == 3
    learns(compiled(model, SNES(keras.optimizers.Adam(0.02), 4)))
    stripped = keras_es.strip_masks(model)
    assert not keras_es.masked_weights(stripped)
    x, _ = data()
    np.testing.assert_allclose(stripped(x), model(x), rtol=1e-5, atol=1e-6)


def test_weights_file_of_a_subclassed_model(tmp_path):
    x, _ = data()
    model, other = sparsified(), sparsified()
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(x), model(x))


def test_a_config_that_builds_another_model_is_refused(tmp_path):
    model = sparsified()
    config = model.get_config()
    config["mask_map"] = [{**config["mask_map"][0], "position": 9}]
    fresh = Plain.from_config({k: v for k, v in config.items() if k != "mask_map"})
    fresh(data()[0])
    with pytest.raises(ValueError, match="masked Dense as number 9 of.*Received"):
        keras_es.layers.tree.apply_mask_map(fresh, config["mask_map"])


class Helper(keras.layers.Layer):
    """Makes a part when it is used first, as preprocessors of KerasHub do."""

    def use(self):
        self.part = keras.layers.Flatten()


@keras.saving.register_keras_serializable("tests")
class Helped(Plain):
    """Has a helper before its other layers."""

    def __init__(self, units=8, **kwargs):
        super(Plain, self).__init__(**kwargs)
        self.helper, self.units = Helper(), units
        self.hidden, self.out = [], keras.layers.Dense(3)

    def build(self, input_shape):
        self.out.build(input_shape)


@pytest.mark.filterwarnings("ignore:Layer 'helper'")
def test_parts_that_are_made_later_do_not_move_masks(tmp_path):
    model = Helped()
    x, _ = data()
    model(x)
    sparse = keras_es.sparsify(model, 0.5)
    sparse.helper.use()
    config = sparse.get_config()
    (entry,) = config["mask_map"]
    path = tmp_path / "model.keras"
    sparse.save(path)
    np.testing.assert_array_equal(keras.saving.load_model(path)(x), sparse(x))
    # Files of before count all layers.
    fresh = Helped()
    fresh(x)
    entry.pop("position")
    keras_es.layers.tree.apply_mask_map(fresh, [{**entry, "index": 1}])
    assert keras_es.layers.tree.is_twin(fresh.out)
