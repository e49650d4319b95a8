"""KerasHub's models, with random weights: from `sparsify` to a SavedModel."""

import keras
import numpy as np
import pytest
import tensorflow as tf

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


IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")
LABELS = np.array([0, 1, 0, 1])
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64],
    "stackwise_num_blocks": [1],
    "stackwise_num_strides": [1],
    "block_type": "basic_block",
    "image_shape": (16, 16, 3),
}
VIT = {
    "image_shape": (16, 16, 3),
    "patch_size": (8, 8),
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "mlp_dim": 16,
}
BACKBONES = {
    "BertBackbone": SIZES,
    "GPT2Backbone": SIZES,
    "ResNetBackbone": RESNET,
    "ViTBackbone": VIT,
}


def classifier(backbone):
    """Return a model whose only layers are a backbone, a mean and a Dense."""
    features = backbone(backbone.input)
    if isinstance(features, dict):
        features = features["sequence_output"]
    axes = tuple(range(1, len(features.shape) - 1))
    logits = keras.layers.Dense(2)(keras.ops.mean(features, axis=axes))
    return keras.Model(backbone.input, logits)


def batch_of(model):
    if not isinstance(model.input, dict):
        return IMAGES
    return {name: np.tile(TOKENS[name], (4, 1)) for name in model.input}


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_from_random_weights_to_a_saved_model(name, tmp_path):
    backbone = getattr(hub.models, name)(**BACKBONES[name])
    has_words = BACKBONES[name] is SIZES
    sparse = keras_es.sparsify(classifier(backbone), 0.5, include_embeddings=has_words)
    masked = keras_es.masked_weights(sparse)
    assert any(m.attribute == "embeddings" for m in masked) == has_words
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sparse.compile(keras_es.optimizers.GuidedNES("adam", 2), loss, jit_compile=False)
    x = batch_of(sparse)
    history = sparse.fit(x, LABELS, batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(m.deployed_nnz() == m.nnz for m in masked)
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is keras_es.optimizers.GuidedNES
    expected = sparse(x)
    np.testing.assert_array_equal(again(x), expected)
    plain = keras_es.strip_masks(sparse)
    assert not keras_es.masked_weights(plain)
    assert type(backbone) in [type(layer) for layer in plain.layers]
    np.testing.assert_array_equal(plain(x), expected)
    plain.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    x = {k: v.astype("int32") for k, v in x.items()} if has_words else x
    np.testing.assert_allclose(served.serve(x), expected, rtol=1e-4, atol=1e-5)


def text_classifier():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "ab"]
    tokenizer = hub.models.BertTokenizer(vocabulary=words)
    preprocessor = hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=8
    )
    backbone = hub.models.BertBackbone(**SIZES)
    return hub.models.BertTextClassifier(backbone, 2, preprocessor), TEXTS


def image_classifier():
    converter = hub.layers.ResNetImageConverter(image_size=(16, 16), scale=1 / 255)
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(converter)
    backbone = hub.models.ResNetBackbone(**RESNET)
    larger = np.random.default_rng(0).uniform(0, 255, (4, 20, 20, 3))
    return hub.models.ImageClassifier(backbone, 2, preprocessor), larger


@pytest.mark.slow
@pytest.mark.parametrize("make", [text_classifier, image_classifier])
def test_a_classifier_keeps_its_preprocessor(make, tmp_path):
    model, raw = make()
    expected = model.predict(raw, verbose=0)
    sparse = keras_es.sparsify(model, 0.0)
    np.testing.assert_allclose(sparse.predict(raw, verbose=0), expected, 1e-4, 1e-5)
    sparse = keras_es.sparsify(model, 0.5, include_embeddings=make is text_classifier)
    assert isinstance(sparse, type(model)) and sparse.preprocessor is not None
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sparse.compile(keras_es.optimizers.GuidedNES("adam", 2), loss, jit_compile=False)
    sparse.fit(raw, LABELS, batch_size=2, shuffle=False, verbose=0)
    expected = sparse.predict(raw, verbose=0)
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(raw, verbose=0), expected, 1e-4, 1e-5)
    plain = keras_es.strip_masks(again)
    assert type(plain) is type(model)
    np.testing.assert_allclose(plain.predict(raw, verbose=0), expected, 1e-4, 1e-5)


def test_the_table_of_a_task_is_masked_by_words(task, tmp_path):
    sparse = keras_es.sparsify(task, 0.5, include_embeddings=True)
    table = next(
        m for m in keras_es.masked_weights(sparse) if m.attribute == "embeddings"
    )
    assert table.nnz == 4 * 8 and len(keras_es.masked_weights(sparse)) == 7
    sparse.compile("sgd", sampler="greedy", run_eagerly=True)
    expected = generated(sparse)
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    again.compile(sampler="greedy", run_eagerly=True)  # KerasHub saves no sampler
    assert generated(again) == expected
    plain = keras_es.strip_masks(again)
    layer = plain.backbone.token_embedding
    assert type(layer) is type(task.backbone.token_embedding)
    assert (np.asarray(layer.embeddings).any(axis=1)).sum() == 4
    assert_equal(outputs(plain), outputs(sparse))


def test_adapters_of_a_backbone_are_evolved():
    keras.utils.set_random_seed(0)
    backbone = hub.models.GPT2Backbone(**SIZES)
    backbone.enable_lora(2)
    names = {v.name for v in backbone.trainable_variables}
    # Keras lets the biases of layers with an adapter learn, too.
    assert names == {"lora_kernel_a", "lora_kernel_b", "bias"}
    model = keras_es.es_model(backbone)
    frozen = [w for w in model.weights if not w.trainable]
    before = [w.numpy() for w in frozen]
    model.compile(keras_es.optimizers.OpenES(None, 2), "mse", run_eagerly=True)
    x = {name: TOKENS[name] for name in model.input}
    start = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(x, np.ones((1, 8, 8)))
    for w, old in zip(frozen, before):
        np.testing.assert_array_equal(w, old)
    moved = [np.abs(v - s).max() for v, s in zip(model.trainable_variables, start)]
    assert min(moved) > 0


@pytest.mark.slow
def test_rewards_of_sampled_text_are_the_same_in_each_run(task):
    start = task.get_weights()

    def run():
        task.set_weights(start)
        texts = []

        def reward(model, generation):
            texts.append(model.generate("a b", max_length=8))
            return texts[-1].count("a")

        optimizer = keras_es.optimizers.OpenES(None, 2, sigma=0.5)
        task.compile(optimizer, sampler="random", run_eagerly=True)
        keras_es.evolve(task, reward, generations=2, verbose=0)
        return texts, task.get_weights()

    (first, weights), (second, again) = run(), run()
    assert first == second and len(first) == 4
    for a, b in zip(weights, again):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(weights, start))
    task.set_weights(start)


@pytest.mark.slow
def test_a_backbone_is_made_smaller_as_its_error_says():
    backbone = hub.models.ResNetBackbone(**RESNET)
    channels = keras_es.patterns.Channel()
    with pytest.raises(ValueError, match="keras.Model.model.inputs, model.outputs"):
        sparse = keras_es.sparsify(backbone, 0.5, pattern=channels)
        keras_es.strip_masks(sparse, compact=True)
    model = keras.Model(backbone.input, backbone.output)
    sparse = keras_es.sparsify(model, 0.5, pattern=channels)
    plain = keras_es.strip_masks(sparse)
    small = keras_es.strip_masks(sparse, compact=True)
    assert small.count_params() < 0.75 * plain.count_params()
    x = np.random.default_rng(0).uniform(size=(2, *backbone.input.shape[1:]))
    np.testing.assert_allclose(small(x), plain(x), rtol=1e-5, atol=1e-5)
