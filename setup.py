"""Packaging of keras_es; the configuration of the tools is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version():
    """Reads the version without importing the package, which needs TensorFlow."""
    text = (ROOT / "keras_es" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('keras_es/__init__.py has no line `__version__ = "..."`')
    return match.group(1)


setup(
    name="keras_es",
    version=read_version(),
    description=(
        "Sparse and non-differentiable training for Keras 3 on TensorFlow: masks "
        "by evolution strategies, weights by gradient, in one fit"
    ),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["keras_es", "keras_es.*"]),
    package_data={"keras_es": ["py.typed"]},
    zip_safe=False,
    # Keras 3.10 and later need 3.11 or soon will; TensorFlow 2.17-2.19 have wheels
    # up to Python 3.12, 2.20 and 2.21 up to 3.13, none has them for 3.14.
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.17,<2.22",
        "keras>=3.10",
        "tensorflow-datasets",
        # tensorflow-datasets imports it on every Python when it prepares a data set,
        # and requires it below 3.9 only.
        "importlib_resources",
        # Later ones need protobuf 6, which TensorFlow 2.17-2.19 exclude; their own
        # metadata does not say so, and `tfds.load` is then missing at run time.
        "tensorflow-metadata<1.18",
        "absl-py",
        "scikit-learn",
        "matplotlib",
    ],
    extras_require={
        "test": ["pytest>=8", "ruff>=0.6", "mypy>=1.11"],
        # The native ops of the last tensorflow-io load on TensorFlow 2.16 and 2.17
        # only, and it has no wheels for Python 3.13.
        "audio": ["tensorflow-io==0.37.1", "tensorflow<2.18"],
        # Where those ops do not load: soundfile reads flac, mp3 and any wav, soxr
        # resamples. Wav files of whole numbers at one rate need neither.
        "speech": ["soundfile", "soxr"],
        # visqol-python compares speech with recordings, in benchmarks.speech.
        "bench": ["evosax", "jax", "pygad", "visqol-python"],
        # Only to run what `export(..., "litert")` writes: TensorFlow has the converter,
        # but its own interpreter is going, and warns.
        "litert": ["ai-edge-litert"],
        # Keras converts to ONNX by tf2onnx; onnxruntime runs the files, in tests and
        # benchmarks. onnx from 1.19 on wants an ml_dtypes that TensorFlow 2.17 and
        # 2.18 exclude, and does not say so: there `pip install "onnx<1.19"`.
        "onnx": ["tf2onnx>=1.17", "onnx", "onnxruntime"],
        "rl": ["gymnasium[mujoco]"],
        # The models that users of KerasHub have are tested with it. Its newest needs
        # TensorFlow Text, which follows TensorFlow's versions by itself.
        "hub": ["keras-hub"],
        "docs": ["mkdocs", "mkdocstrings[python]"],
    },
    keywords="keras tensorflow sparsity pruning evolution-strategies",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
