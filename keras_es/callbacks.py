"""Callbacks that keep, watch and stop a run. None is needed for a correct result."""

from keras_es.runs.checkpoints import AtomicCheckpoint
from keras_es.runs.signals import StopOnSignal, TrainingStopped
from keras_es.runs.tensorboard import MaskTensorBoard

__all__ = ["AtomicCheckpoint", "MaskTensorBoard", "StopOnSignal", "TrainingStopped"]
