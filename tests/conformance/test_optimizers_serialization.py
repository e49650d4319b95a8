"""A saved model comes back with its optimizer, and both train on alike."""

import keras
import pytest

from keras_es import optimizers
from tests.reference import problems


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_compiled_model_survives_the_file(name, tmp_path):
    inner = keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=1.0, use_ema=True)
    model = problems.compiled(problems.make(name, inner, seed=3))
    problems.fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    problems.assert_same(problems.weights_of(model), problems.weights_of(loaded))
    for each in (model, loaded):
        problems.fit(each)
    problems.assert_same(problems.weights_of(model), problems.weights_of(loaded))
