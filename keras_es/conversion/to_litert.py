"""From a SavedModel to the bytes of a LiteRT file."""

import warnings

import tensorflow as tf

WEIGHTS = ("float32", "float16", "int8")


def convert(folder, weights, sparse):
    """Return a LiteRT model.

    Args:
        folder: Path of a SavedModel.
        weights: One of `WEIGHTS`. All three are symmetric, so that zero stays zero.
        sparse: Whether tensors with many zeros are stored without them.

    Raises:
        ValueError: If LiteRT has no operation for one of the model's.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    # As Keras's own export has it: layers with state that is not in the graph.
    converter.experimental_enable_resource_variables = True
    if sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if weights != "float32":
        # Without a data set of examples only weights are quantized beforehand.
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        with warnings.catch_warnings():
            # Of TensorFlow 2.17 on how it asks NumPy.
            warnings.simplefilter("ignore", DeprecationWarning)
            return converter.convert()
    except Exception as error:  # of a private class, with the trace of the compiler
        raise ValueError(_message(str(error))) from error


def _message(text):
    if "TensorList" in text:
        return (
            "LiteRT needs a fixed batch for recurrent layers, or `unroll=True` in "
            "them. Give `input_signature=[tf.TensorSpec((1, steps, features))]` with "
            "your shape. Received: a model with loops over time and any batch size"
        )
    at = max(text.find("Some ops are not supported"), text.find("error:"), 0)
    return (
        "The model cannot be converted to LiteRT's own operations. Take "
        "format='tf_saved_model' or 'onnx', or `model.export(path, format='litert')` "
        "of the stripped model, whose file may need TensorFlow's operations beside "
        f"LiteRT. Received: {text[at:][:400]}"
    )
