"""KerasHub's models, with random weights: masked, trained, saved, stripped."""

import keras
import numpy as np
import pytest

import keras_es

hub = pytest.importorskip("keras_hub")

SIZES = {
    "vocabulary_size": 8,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 8,
}
TOKENS = {
    "token_ids": np.array([[1, 2, 3, 4, 0, 0, 0, 0]]),
    "padding_mask": np.array([[1, 1, 1, 1, 0, 0, 0, 0]]),
    "segment_ids": np.zeros((1, 8), int),
}
TEXTS = ["a b ab", "b a", "a a a", "b b"]


def outputs(model):
    return model({name: TOKENS[name] for name in model.input})


def assert_equal(a, b):
    keras.tree.map_structure(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", ["BertBackbone", "GPT2Backbone"])
def test_backbones(name, tmp_path):
    model = getattr(hub.models, name)(**SIZES)
    assert_equal(outputs(keras_es.sparsify(model, 0.0)), outputs(model))
    sparse = keras_es.sparsify(model, 0.5)
    # q, k, v, output and two feedforward kernels of the block; BERT has a pooler.
    assert len(keras_es.masked_weights(sparse)) == (7 if name == "BertBackbone" else 6)
    assert len(sparse.trainable_variables) == len(model.trainable_variables)
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(outputs(again), outputs(sparse))
    plain = keras_es.strip_masks(sparse)
    assert type(plain) is type(model)
    assert_equal(outputs(plain), outputs(sparse))


@pytest.fixture(scope="module")
def task():
    names = ["!", "a", "b", "Ġ", "Ġa", "<|endoftext|>", "ab", "Ġb"]
    tokenizer = hub.models.GPT2Tokenizer(
        vocabulary={name: index for index, name in enumerate(names)},
        merges=["a b", "Ġ a", "Ġ b"],
    )
    preprocessor = hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
    model = hub.models.GPT2CausalLM(hub.models.GPT2Backbone(**SIZES), preprocessor)
    model.compile(sampler="greedy", run_eagerly=True)
    return model


def generated(model):
    return model.generate("a b ab", max_length=8)


def test_a_task_generates_trains_and_is_saved(task, tmp_path):
    expected = generated(task)
    dense = keras_es.sparsify(task, 0.0)
    dense.compile("sgd", sampler="greedy", run_eagerly=True)
    assert generated(dense) == expected

    sparse = keras_es.sparsify(task, 0.5)
    assert len(keras_es.masked_weights(sparse)) == 6
    # The embedding is read forwards and backwards: one weight, tied.
    assert len(sparse.trainable_variables) == len(task.trainable_variables)
    optimizer = keras_es.optimizers.SNES(
        "adam", 2, turns=keras_es.optimizers.Turns(steps=1)
    )
    sparse.compile(optimizer, sampler="greedy", run_eagerly=True)
    logs = sparse.train_on_batch(TEXTS, return_dict=True)
    assert np.isfinite(logs["loss"]) and logs["sparsity"] == 0.5

    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(sparse)
    assert type(again.optimizer) is keras_es.optimizers.SNES
    assert_equal(outputs(again), outputs(sparse))
    plain = keras_es.strip_masks(again)
    assert type(plain) is type(task)
    assert_equal(outputs(plain), outputs(sparse))
    plain.compile(sampler="greedy", run_eagerly=True)
    sparse.run_eagerly, sparse.generate_function = True, None
    assert generated(plain) == generated(sparse)


def test_a_task_without_masks_keeps_all_that_it_does(task):
    expected = generated(task)
    model = keras_es.es_model(task)
    assert model is task
    model.compile(
        keras_es.optimizers.OpenES(None, 2), sampler="greedy", run_eagerly=True
    )
    assert model.has_members() and generated(model) == expected
    model.compile("sgd", sampler="greedy", run_eagerly=True)
    assert np.isfinite(model.train_on_batch(TEXTS, return_dict=True)["loss"])
