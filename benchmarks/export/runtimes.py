"""Exported files as functions of an array, and their sizes."""

import gzip
from pathlib import Path

FORMATS = {
    "SavedModel": ("saved", "tf_saved_model", {}),
    "LiteRT": ("m.tflite", "litert", {"sparse_encoding": False}),
    "LiteRT, zeros left out": ("m.tflite", "litert", {"sparse_encoding": True}),
    "LiteRT, float16": ("m.tflite", "litert", {"weights": "float16"}),
    "LiteRT, int8": ("m.tflite", "litert", {"weights": "int8"}),
    "ONNX": ("m.onnx", "onnx", {"sparse_encoding": False}),
    "ONNX, zeros left out": ("m.onnx", "onnx", {"sparse_encoding": True}),
}
"""Name -> (file, format, arguments of `keras_es.export`)."""


def export(model, name, folder):
    """Export a model in one of `FORMATS`; return the path."""
    import keras_es

    file, kind, arguments = FORMATS[name]
    return keras_es.export(model, Path(folder, file), kind, **arguments)


def sizes(path):
    """Return (bytes, bytes after gzip) of a file, or of all files of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    content = [file.read_bytes() for file in files if file.is_file()]
    return sum(map(len, content)), sum(len(gzip.compress(c, 6)) for c in content)


def load(path, threads=1):
    """Return a function from an input array to the output array.

    Args:
        path: Of a file or a SavedModel.
        threads: How many the runtime may take; a SavedModel has TensorFlow's.
    """
    kind = {".tflite": _litert, ".onnx": _onnx}.get(path.suffix, _saved_model)
    return kind(path, threads)


def _saved_model(path, threads):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    # `loaded` has the variables; the function alone would let them go.
    return lambda x, model=loaded: model.serve(x).numpy()


def _litert(path, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # TensorFlow's own, which is older
        from tensorflow.lite.python.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    shape = None

    def call(x):
        nonlocal shape
        given = interpreter.get_input_details()[0]["index"]
        if x.shape != shape:
            interpreter.resize_tensor_input(given, x.shape)
            interpreter.allocate_tensors()
            shape = x.shape
        interpreter.set_tensor(given, x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return call


def _onnx(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]
