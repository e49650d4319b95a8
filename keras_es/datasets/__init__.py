"""Data sets for `train.py`, the benchmarks and the examples."""

from keras_es.datasets import audio
from keras_es.datasets.images import ImageDataset, load

__all__ = ["ImageDataset", "audio", "load"]
