"""`export`: every format gives the outputs of the model; a file is whole or absent."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.conversion import to_litert
from keras_es.conversion.export import deployable
from keras_es.layers import tree
from keras_es.patterns import Block

X = np.random.default_rng(0).normal(size=(1, 64)).astype("float32")


def plain():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(8)]
    return keras.Sequential([keras.Input((64,)), *layers])


def masked():
    return keras_es.sparsify(plain(), 0.9, pattern=Block(4, 1))


def block_sparse(outer=keras_es.ESSequential):
    keras.utils.set_random_seed(0)
    layer = keras_es.layers.BlockSparseDense(
        64, "relu", sparsity=0.75, block_size=(16, 8)
    )
    return outer([keras.Input((64,)), layer, keras.layers.Dense(8)])


def mixed():
    """Return a model with a masked and a block-sparse layer."""
    model = block_sparse(keras.Sequential)
    return keras_es.sparsify(model, 0.5)


MODELS = {f.__name__: f for f in (plain, masked, block_sparse, mixed)}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]()


def litert(path, x):
    """Run a LiteRT file; return its outputs and interpreter."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # without the extra `litert`
        Interpreter = tf.lite.Interpreter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own is to go
        interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(
        interpreter.get_output_details()[0]["index"]
    ), interpreter


@pytest.fixture(params=MODELS)
def fresh(request):
    """A model that was never called, which Keras's own export to ONNX wants."""
    return MODELS[request.param]()


def onnx_outputs(path, x):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_a_saved_model_gives_the_same(model, tmp_path):
    path = keras_es.export(model, tmp_path / "new" / "saved")
    loaded = tf.saved_model.load(str(path))
    np.testing.assert_allclose(loaded.serve(X), model(X), atol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == ["saved"]


def test_litert_gives_the_same(model, tmp_path):
    path = keras_es.export(model, str(tmp_path / "m.tflite"), "litert")
    np.testing.assert_allclose(litert(path, X)[0], model(X), atol=1e-4)


def test_onnx_gives_the_same(fresh, tmp_path):
    model = fresh
    pytest.importorskip("tf2onnx")
    onnx = pytest.importorskip("onnx")
    for sparse in (False, True):
        path = tmp_path / f"{sparse}.onnx"
        keras_es.export(model, path, "onnx", sparse_encoding=sparse)
        onnx.checker.check_model(str(path))
        np.testing.assert_allclose(onnx_outputs(path, X), model(X), atol=1e-4)
    sizes = [(tmp_path / f"{s}.onnx").stat().st_size for s in (False, True)]
    if any(w.sparsity == 0.9 for w in tree.masked_weights(model)):
        assert sizes[1] < 0.5 * sizes[0]
    else:
        assert sizes[1] <= sizes[0] + 100  # names of what was made


def test_only_masked_layers_become_plain():
    model = mixed()
    kinds = [type(layer).__name__ for layer in deployable(model).layers]
    assert kinds == ["BlockSparseDense", "Dense"]
    assert [type(layer).__name__ for layer in model.layers][1] == "MaskedDense"
    same = block_sparse()
    assert deployable(same) is same


def weights_of(interpreter):
    """Return the constant matrices of a LiteRT file, as numbers."""
    found = []
    for detail in interpreter.get_tensor_details():
        try:
            value = interpreter.get_tensor(detail["index"])
        except ValueError:  # of a step between
            continue
        if value.ndim == 2 and value.shape[0] > 1:
            found.append(value)
    return found


def test_litert_keeps_zeros_and_its_sparse_file_is_small(tmp_path):
    model = masked()
    count = [w.deployed_nnz() for w in tree.masked_weights(model)]
    kernel = model.layers[0].masked_weights[0].effective_value().numpy().T
    size = {}
    for weights, sparse in (
        ("float32", None), ("float32", False), ("float16", None), ("int8", None),
    ):  # fmt: skip
        path = tmp_path / "model.tflite"
        keras_es.export(model, path, "litert", weights=weights, sparse_encoding=sparse)
        size[weights, sparse] = path.stat().st_size
        y, interpreter = litert(path, X)
        np.testing.assert_allclose(y, model(X), atol=2e-2)
        stored = weights_of(interpreter)
        if sparse is None and weights == "float32":
            continue  # read in another layout
        big = [w for w in stored if w.shape == kernel.shape]
        assert big, [w.shape for w in stored]
        for matrix in big:
            np.testing.assert_array_equal(matrix[kernel == 0], 0)
            assert np.count_nonzero(matrix) <= count[0]
    assert size["float32", None] < 0.3 * size["float32", False]
    assert size["float16", None] < 0.75 * size["float32", False]
    assert size["int8", None] < 0.5 * size["float32", False]


def test_block_sparse_layers_store_their_blocks_only(tmp_path):
    model = block_sparse()
    big, small = tmp_path / "big.tflite", tmp_path / "small.tflite"
    keras_es.export(keras_es.strip_masks(model), big, "litert", sparse_encoding=False)
    keras_es.export(model, small, "litert")
    assert big.stat().st_size - small.stat().st_size > 0.5 * 4 * 64 * 64


def test_recurrent_block_sparse_layers(tmp_path):
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    layer = keras_es.layers.BlockSparseGRU(16, sparsity=0.5, block_size=8)
    model = keras_es.ESSequential([keras.Input((3, 8)), layer])
    x = np.random.default_rng(0).normal(size=(1, 3, 8)).astype("float32")
    keras_es.export(model, tmp_path / "gru.onnx", "onnx")
    y = onnx_outputs(tmp_path / "gru.onnx", x)
    np.testing.assert_allclose(y, model(x), atol=1e-4)


def test_litert_wants_a_fixed_batch_of_recurrent_layers(tmp_path):
    model = keras.Sequential([keras.Input((3, 8)), keras.layers.GRU(4)])
    path = tmp_path / "gru.tflite"
    with pytest.raises(ValueError, match="fixed batch for recurrent layers"):
        keras_es.export(model, path, "litert")
    fixed = [tf.TensorSpec((1, 3, 8), "float32")]
    keras_es.export(model, path, "litert", input_signature=fixed)
    x = np.random.default_rng(0).normal(size=(1, 3, 8)).astype("float32")
    np.testing.assert_allclose(litert(path, x)[0], model(x), atol=1e-4)


def test_litert_has_the_batch_of_the_inputs_and_no_sparse_recurrence(tmp_path):
    inputs = keras.Input((5, 8), batch_size=2)
    keras.utils.set_random_seed(0)
    model = keras_es.sparsify(keras.Model(inputs, keras.layers.LSTM(3)(inputs)), 0.5)
    path = keras_es.export(model, tmp_path / "lstm.tflite", "litert")
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    np.testing.assert_allclose(litert(path, x)[0], model(x), atol=1e-5)
    with pytest.raises(ValueError, match=r"recurrent layers rightly.*\['lstm"):
        keras_es.export(model, path, "litert", sparse_encoding=True)


WRONG = {
    "no model": (dict(model="dense"), r"must be a keras.Model.*model='dense'"),
    "no format": (dict(format="tflite"), r"litert.*Received: format='tflite'"),
    "formats": (dict(format=["onnx"]), r"must be one of.*\['onnx'\]"),
    "no suffix": (dict(path="a", format="litert"), r"ends in '.tflite'.*'a'"),
    "suffix": (dict(path="a.onnx"), r"`path` must be a folder.*a.onnx"),
    "no path": (dict(path=3), r"must be a path.*path=3"),
    "weights": (dict(weights="int4"), r"weights='int4'"),
    "weights of": (dict(weights="int8"), r"only LiteRT.*weights='int8'"),
    "sparse": (dict(sparse_encoding=True), r"A SavedModel stores all"),
    "no bool": (dict(sparse_encoding="yes"), r"True, False or None.*'yes'"),
    "both": (
        dict(path="a.tflite", format="litert", weights="int8", sparse_encoding=True),
        r"does not read sparse weights.*weights='int8'",
    ),
    "signature": (
        dict(input_signature="abc"),
        r"`input_signature` must be a list.*Received: input_signature='abc' \(",
    ),
    "signature's shape": (
        dict(input_signature=[tf.TensorSpec((None, 5))]),
        r"cannot be called.*TensorSpec.*\(Input 0 .* have value 64",
    ),
    "signatures": (
        dict(input_signature=[tf.TensorSpec((None, 8))] * 2),
        r"one for each input.*multiple values",
    ),
    "not built": (
        dict(model=keras.Sequential([keras.layers.Dense(2)])),
        "no weights yet",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong, message = WRONG[name]
    arguments = {"model": wrong.get("model") or plain(), "path": "a", **wrong}
    with pytest.raises(ValueError, match=message):
        keras_es.export(**arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_no_export_is_not_replaced(tmp_path):
    folder, model = tmp_path / "photos", plain()
    folder.mkdir()
    (folder / "one").write_text("dear")
    with pytest.raises(ValueError, match="holds a SavedModel.*photos"):
        keras_es.export(model, folder)
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(ValueError, match="must be a file.*m.tflite"):
        keras_es.export(model, tmp_path / "m.tflite", "litert")
    (tmp_path / "notes").write_text("dear")
    with pytest.raises(OSError, match="cannot write"):
        keras_es.export(model, tmp_path / "notes" / "saved")
    assert (folder / "one").read_text() == (tmp_path / "notes").read_text() == "dear"


@pytest.mark.parametrize("format", ["litert", "tf_saved_model"])
def test_an_error_leaves_what_was_there(format, tmp_path, monkeypatch):
    path = tmp_path / {"litert": "m.tflite", "tf_saved_model": "saved"}[format]
    keras_es.export(plain(), path, format)
    before = sorted(p.name for p in tmp_path.rglob("*"))

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    monkeypatch.setattr("shutil.copytree", fail)
    with pytest.raises(OSError, match="cannot write .*: No space left"):
        keras_es.export(plain(), path, format)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_what_litert_does_not_know_is_one_clear_error(tmp_path):
    class Odd(keras.layers.Layer):
        def call(self, x):
            return tf.math.igamma(tf.abs(x) + 1.0, tf.abs(x))

    x = keras.Input((4,))
    model = keras.Model(x, Odd()(x))
    with pytest.raises(ValueError, match="LiteRT's own operations.*Igamma"):
        keras_es.export(model, tmp_path / "m.tflite", "litert")
    assert not list(tmp_path.iterdir())


def test_gelu_runs_in_onnx(tmp_path):
    pytest.importorskip("tf2onnx")
    layers = [keras.layers.Dense(16, "gelu"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    path = keras_es.export(model, tmp_path / "m.onnx", "onnx", sparse_encoding=True)
    np.testing.assert_allclose(onnx_outputs(path, X), model(X), atol=1e-5)


def test_what_onnx_does_not_know_is_one_clear_error(tmp_path):
    pytest.importorskip("tf2onnx")
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            keras.layers.StringLookup(vocabulary=["a", "b"]),
            keras.layers.Embedding(4, 2),
        ]
    )
    with pytest.raises(ValueError, match="ONNX, which lacks.*LookupTableFind"):
        keras_es.export(model, tmp_path / "m.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_onnx_refuses_bfloat16(tmp_path):
    pytest.importorskip("tf2onnx")
    layer = keras.layers.Dense(2, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((8,)), layer])
    with pytest.raises(ValueError, match="do not take its types.*bfloat16"):
        keras_es.export(model, tmp_path / "m.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs tf2onnx and onnx.*keras_es\[onnx\]"):
        keras_es.export(plain(), tmp_path / "m.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_the_weights_are_those_that_are_documented():
    assert to_litert.WEIGHTS == ("float32", "float16", "int8")
