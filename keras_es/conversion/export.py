"""From a model, masked or not, to a file that runs without this package."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es import _files as files
from keras_es.conversion import to_litert, to_onnx
from keras_es.conversion.clone import check_built
from keras_es.conversion.strip import without
from keras_es.layers import BlockSparseLayer, tree

SUFFIXES = {"tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx"}
"""Format, by Keras's names -> how its file is called; a SavedModel is a folder."""

_SIGNATURE = (
    "`input_signature` must be a list of what the model is called on, one for each "
    "input, as [tf.TensorSpec((None, 8))]; with it the model cannot be called. "
    "Received: input_signature={!r} ({})"
)


def export(
    model: keras.Model,
    path: str | os.PathLike,
    format: str = "tf_saved_model",
    *,
    weights: str = "float32",
    sparse_encoding: bool | None = None,
    input_signature: Any = None,
) -> Path:
    """Write a model as a SavedModel, a LiteRT file or an ONNX file.

    It is `keras_es.strip_masks(model).export(path, format=...)` with three things
    besides: block-sparse layers stay so, as a gather and one product for each column
    of blocks; zeros need not be stored; and the file is there in full or not at all,
    so that what was there before is still there if the model cannot be converted.

    What the zeros bring depends on the runtime, see docs/deployment.md. In LiteRT
    dense layers of `Block(4, 1)` are multiplied by sparse kernels; other zeros are
    left out of the file and filled in when it is loaded.

    Args:
        model: Keras model with masked, block-sparse or plain layers, built.
        path: Where to write: a folder for "tf_saved_model", a file that ends in
            ".tflite" for "litert", in ".onnx" for "onnx". Folders above it are made.
        format: "tf_saved_model", "litert" or "onnx", which needs `keras_es[onnx]`.
        weights: How LiteRT stores weights: "float32", "float16", or "int8", where
            products are of integers too (activations are quantized as they come) and
            weights of fewer than 1,024 numbers stay float32. Zero stays exactly zero.
        sparse_encoding: Whether zeros are left out of the file: None where it is safe
            for every reader (LiteRT with float32 weights and no recurrent layers).
            True for ONNX writes `sparse_initializer`s, which ONNX Runtime reads, but
            not every other runtime. A weight is encoded only if that makes it smaller.
        input_signature: Shapes and types of the inputs, as `keras.Model.export` takes
            them; default from the model, for any number of examples unless the format
            is "litert" and the model's Inputs have a `batch_size`.

    Returns:
        The path.

    Raises:
        ValueError: If an argument is wrong, two do not go together, the path holds
            something else, the model is not built or cannot be converted.
        ImportError: If the packages of `keras_es[onnx]` are missing.
        OSError: If the file cannot be written.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> sparse = keras_es.sparsify(model, sparsity=0.9)
    >>> folder = tempfile.mkdtemp()
    >>> keras_es.export(sparse, folder + "/model.tflite", "litert").name
    'model.tflite'
    """
    final = _check(model, path, format)
    _check_options(format, weights, sparse_encoding)
    loops = _recurrent(model)
    if format == "litert" and sparse_encoding and loops:
        # Tried with ai-edge-litert 2.3: outputs of an LSTM that are 10 % off.
        raise ValueError(
            "LiteRT's runtime does not read sparse weights of recurrent layers "
            "rightly. Leave `sparse_encoding` out: zeros compress well. Received: "
            f"sparse_encoding=True, a model with recurrent layers {loops}"
        )
    plain = deployable(model)
    _compat.call_is_known(plain)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "model" + SUFFIXES[format])
        with _silence():
            if format == "onnx":
                to_onnx.write(plain, made, input_signature, bool(sparse_encoding))
            else:
                saved = Path(folder, "model")
                if format == "litert" and input_signature is None:
                    input_signature = _of_one_batch_size(plain)
                _save(plain, saved, input_signature)
            if format == "litert":
                sparse = sparse_encoding is not False and weights == "float32"
                sparse = sparse and not loops
                made.write_bytes(to_litert.convert(saved, weights, sparse))
        _put(made, final)
    return final


def deployable(model):
    """Return a model with plain layers for masked ones; block-sparse ones stay."""

    def is_masked(layer):
        return tree.has_masks(layer) and not isinstance(layer, BlockSparseLayer)

    if not any(is_masked(layer) for _, layer in tree.walk(model)):
        return model
    return without(is_masked, model)


def _check(model, path, format):
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a keras.Model. Received: model={model!r}")
    if not isinstance(format, str) or format not in SUFFIXES:
        raise ValueError(
            f"`format` must be one of {sorted(SUFFIXES)}. For another format of Keras "
            "take `keras_es.strip_masks(model).export(path, format=...)`. "
            f"Received: format={format!r}"
        )
    path = files.expanded("path", path)
    check_built(model)
    suffix, others = SUFFIXES[format], {".tflite", ".onnx", ".keras", ".h5"}
    fits = path.suffix == suffix if suffix else path.suffix not in others
    if not fits:
        wanted = f"a file that ends in {suffix!r}" if suffix else "a folder"
        raise ValueError(
            f"`path` must be {wanted} for format={format!r}. Received: "
            f"path={str(path)!r}"
        )
    _check_replaceable(path, suffix)
    return path


def _check_replaceable(path, suffix):
    """Refuse to take the place of what is no earlier export."""
    if suffix and path.is_dir():
        raise ValueError(
            f"`path` must be a file, but a folder is there. Received: "
            f"path={str(path)!r}"
        )
    if suffix or not path.exists():
        return
    saved = path.is_dir() and (path / "saved_model.pb").exists()
    if not saved and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            "`path` must be a folder that is new, empty or holds a SavedModel, which "
            "is then replaced: another folder or a file is there. Received: "
            f"path={str(path)!r}"
        )


def _check_options(format, weights, sparse_encoding):
    if not isinstance(weights, str) or weights not in to_litert.WEIGHTS:
        raise ValueError(
            f"`weights` must be one of {sorted(to_litert.WEIGHTS)}. "
            f"Received: weights={weights!r}"
        )
    if weights != "float32" and format != "litert":
        raise ValueError(
            f"`weights` of format={format!r} are those of the model: only LiteRT "
            "stores others. Leave it out, or take format='litert'. "
            f"Received: weights={weights!r}"
        )
    if not (sparse_encoding is None or isinstance(sparse_encoding, bool)):
        raise ValueError(
            "`sparse_encoding` must be True, False or None. "
            f"Received: sparse_encoding={sparse_encoding!r}"
        )
    if sparse_encoding and format == "tf_saved_model":
        raise ValueError(
            "A SavedModel stores all weights, zero or not: compress it, take another "
            "format or block-sparse layers. Received: sparse_encoding=True, "
            f"format={format!r}"
        )
    if sparse_encoding and weights != "float32":
        # Tried with ai-edge-litert 2.3: int8 is refused by XNNPACK or multiplied
        # wrongly, by the block; float16 in blocks of 4 gives NaN.
        raise ValueError(
            "LiteRT's runtime does not read sparse weights of other types than "
            "float32 rightly. Leave `sparse_encoding` out: zeros of "
            f"{weights} compress well. Received: sparse_encoding=True, "
            f"weights={weights!r}"
        )


def _recurrent(model):
    """Return the names of a model's layers that loop over time."""
    kinds = (keras.layers.RNN, keras.layers.Bidirectional)
    return [layer.name for _, layer in tree.walk(model) if isinstance(layer, kinds)]


def _of_one_batch_size(model):
    """Return the signature of a model whose Inputs say how many examples, else None.

    Keras would export it for any number, which LiteRT does not take of loops over time.
    """
    inputs = _compat.inputs_of(model)
    tensors = keras.tree.flatten(inputs) if inputs is not None else []
    if not tensors or any(not t.shape or t.shape[0] is None for t in tensors):
        return None
    return [
        keras.tree.map_structure(
            lambda t: tf.TensorSpec(t.shape, t.dtype, name=t.name), inputs
        )
    ]


def _save(model, folder, signature):
    """Write a SavedModel for the converter, or for good."""
    try:
        model.export(str(folder), verbose=False, input_signature=signature)
    except Exception as error:
        if signature is None or isinstance(error, OSError):
            raise
        raise ValueError(_SIGNATURE.format(signature, _first_line(error))) from error


def _first_line(error):
    """Return what an error says, without Keras's colors and list of arguments."""
    text = str(error).replace("\x1b[1m", "").replace("\x1b[0m", "")
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception encountered")]
    return (said or lines or [type(error).__name__])[0].strip()


def _put(made, path):
    """Put what was made at its final place, in one step."""
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if made.is_dir():
        files.replace_folder(path, lambda partial: shutil.copytree(made, partial))
    else:
        files.replace_file(path, lambda partial: shutil.copyfile(made, partial))


@contextlib.contextmanager
def _silence():
    """Keep to the file: converters announce themselves at length."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(level)
