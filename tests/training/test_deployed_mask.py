"""The deployed mask is current whenever somebody looks, without a callback."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import OPTIMIZERS
from tests.training.common import compiled, data, sgd, sparse_mlp


def output_by_scores(model, x):
    """What the model must give: kernels under the masks decoded from scores."""
    for i, layer in enumerate(model.layers):
        (masked,) = layer.masked_weights
        units = masked.decode(masked.mask_scores.value)
        assert int(keras.ops.sum(units)) == masked.unit_count
        mask = np.array(masked.expand(units))
        x = x @ (masked.kernel.numpy() * mask) + layer.bias.numpy()
        x = np.tanh(x) if i == 0 else x
    return x


class Look(keras.callbacks.Callback):
    """After each batch and epoch, asks the model in every way."""

    def __init__(self, x, y, folder):
        super().__init__()
        self.x, self.y, self.folder, self.seen = x, y, folder, []

    def check(self, got, rtol=1e-4):
        want = output_by_scores(self.model, self.x)
        np.testing.assert_allclose(got, want, rtol, 1e-5)
        self.seen.append(want)

    def on_train_batch_end(self, batch, logs=None):
        self.check(self.model(self.x))

    def on_epoch_end(self, epoch, logs=None):
        self.check(self.model.predict(self.x, verbose=0))
        want = output_by_scores(self.model, self.x).argmax(axis=-1) == self.y
        results = self.model.evaluate(self.x, self.y, verbose=0, return_dict=True)
        assert results["accuracy"] == pytest.approx(want.mean())
        self.model.save(self.folder / "model.keras")
        loaded = keras.saving.load_model(self.folder / "model.keras")
        self.check(loaded.predict(self.x, verbose=0))
        stripped = keras_es.strip_masks(self.model)
        self.check(stripped.predict(self.x, verbose=0))


@pytest.mark.parametrize("method", ["snes", "guided_nes"])
def test_during_fit(method, tmp_path):
    x, y = data()
    optimizer = OPTIMIZERS[method](sgd())
    model = compiled(sparse_mlp(), optimizer, metrics=["accuracy"])
    look = Look(x, y, tmp_path)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[look])
    assert not np.allclose(look.seen[0], look.seen[-1])


def test_flips_are_those_of_the_deployed_mask():
    x, y = data()
    model = compiled(sparse_mlp(sparsity=0.75), OPTIMIZERS["snes"](sgd()))
    for _ in range(3):
        before = [m.kernel_mask.numpy() for m in keras_es.masked_weights(model)]
        logs = model.train_on_batch(x, y, return_dict=True)
        after = [m.kernel_mask.numpy() for m in keras_es.masked_weights(model)]
        flipped = sum((a != b).sum() for a, b in zip(before, after))
        size = sum(a.size for a in after)
        assert logs["mask_flip_ratio"] == pytest.approx(flipped / size)
        zeros = sum((~a).sum() for a in after)
        assert logs["sparsity"] == pytest.approx(zeros / size)


def test_export_after_fit(tmp_path):
    x, y = data()
    model = compiled(sparse_mlp())
    model.fit(x, y, batch_size=8, verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(
        exported.serve(x), output_by_scores(model, x), 1e-4, 1e-5
    )
