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
        ValueError: If ONNX has no operation for one of the model's, or for its types.
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
    logging.disable(logging.ERROR)  # what goes wrong is said once, below
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
    made = onnx.load(str(path))
    spelled = spell_out_erfc(made.graph)
    if names := unknown_operations(made.graph):
        raise ValueError(
            "The model cannot be converted to ONNX, which lacks operations of it. Take "
            f"format='tf_saved_model' or 'litert'. Received: operations {names}"
        )
    check_types(made)
    if sparse:
        encode_zeros(made.graph)
    if sparse or spelled:
        onnx.save(made, str(path))


def check_types(made):
    """Refuse an ONNX model whose operations get types that they do not take.

    The converter mixes bfloat16 with float16.
    """
    import onnx

    try:
        onnx.shape_inference.infer_shapes(made, check_type=True)
    except onnx.shape_inference.InferenceError as error:
        raise ValueError(
            "The model cannot be converted to ONNX, whose operations do not take its "
            "types. Of bfloat16 layers take format='tf_saved_model', or load the "
            f"weights into a model of float32 layers. Received: {str(error)[:400]}"
        ) from error


def spell_out_erfc(graph):
    """Put 1 - erf(x) for erfc(x), which ONNX lacks; tell whether there was one.

    TensorFlow has it in GELU, and the converter leaves it as it is.
    """
    from onnx import helper

    nodes = list(graph.node)
    found = [node for node in nodes if node.op_type == "Erfc"]
    if not found:
        return False
    del graph.node[:]
    for node in nodes:
        if node.op_type != "Erfc":
            graph.node.append(node)
            continue
        (out,) = node.output
        erf, one, alike = (f"{out}_{name}" for name in ("erf", "one", "one_alike"))
        graph.node.extend(
            [
                helper.make_node("Erf", list(node.input), [erf]),
                helper.make_node("Constant", [], [one], value_float=1.0),
                helper.make_node("CastLike", [one, erf], [alike]),
                helper.make_node("Sub", [alike, erf], [out]),
            ]
        )
    return True


def unknown_operations(graph):
    """Return the sorted names of a graph's operations that ONNX does not have.

    The converter leaves what it does not know as TensorFlow calls it.
    """
    import onnx

    found = set()
    for node in graph.node:
        standard = node.domain in ("", "ai.onnx", "ai.onnx.ml")
        domain = "" if node.domain == "ai.onnx" else node.domain
        if standard and not onnx.defs.has(node.op_type, domain):
            found.add(node.op_type)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found.update(unknown_operations(inner))
    return sorted(found)


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
