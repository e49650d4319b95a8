"""From a model to an ONNX file, and zeros out of it."""

import importlib.util
import logging
import warnings

import numpy as np

PACKAGES = ("tf2onnx", "onnx")


def write(model, path, input_signature, sparse):
    """Write an ONNX file.

    Args:
        model: Keras model without masked layers.
        path: Where to.
        input_signature: As `keras.Model.export` takes it.
        sparse: Whether weights with many zeros are stored without them.

    Raises:
        ImportError: If a package is missing or does not go with the others.
        ValueError: If ONNX has no operation for one of the model's.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"format='onnx' needs {' and '.join(missing)}: "
            "pip install 'keras_es[onnx]'. Received: format='onnx'"
        )
    try:
        import onnx
        import onnx.numpy_helper  # noqa: F401
    except Exception as error:
        raise ImportError(
            "format='onnx' needs an `onnx` that goes with the other packages; beside "
            "TensorFlow 2.17 and 2.18 pip install 'onnx<1.19'. Received: "
            f"{type(error).__name__}: {error}"
        ) from error

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Keras asks NumPy for names of old for tf2onnx's sake.
            warnings.simplefilter("ignore")
            model.export(
                str(path), format="onnx", verbose=False, input_signature=input_signature
            )
    except Exception as error:
        raise ValueError(
            "The model cannot be converted to ONNX. Take format='tf_saved_model' or "
            f"'litert'. Received: {type(error).__name__}: {str(error)[:400]}"
        ) from error
    finally:
        logging.disable(level)
    if sparse:
        made = onnx.load(str(path))
        encode_zeros(made.graph)
        onnx.save(made, str(path))


def encode_zeros(graph):
    """Store weights of a graph as values and indices where that is smaller."""
    from onnx import numpy_helper

    stays = []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        places = np.flatnonzero(value).astype("int64")
        small = places.size * (value.itemsize + 8) < value.nbytes
        if value.dtype != np.float32 or not small or not places.size:
            stays.append(tensor)
            continue
        encoded = graph.sparse_initializer.add()
        values = numpy_helper.from_array(value.ravel()[places], tensor.name)
        encoded.values.CopyFrom(values)
        indices = numpy_helper.from_array(places, tensor.name + "_indices")
        encoded.indices.CopyFrom(indices)
        encoded.dims.extend(value.shape)
    del graph.initializer[:]
    graph.initializer.extend(stays)
