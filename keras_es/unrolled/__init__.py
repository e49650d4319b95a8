"""Online evolution strategies for unrolled computations, through `fit`."""

from keras_es.unrolled.draws import fold_in, normal, uniform
from keras_es.unrolled.estimator import Estimator
from keras_es.unrolled.gymnasium_task import GymnasiumTask
from keras_es.unrolled.host import HostTask
from keras_es.unrolled.model import UnrolledModel
from keras_es.unrolled.recurrent import Recurrent
from keras_es.unrolled.rules import GPES, NRES, PES, FullES, TruncatedES
from keras_es.unrolled.task import Task

__all__ = [
    "Estimator",
    "FullES",
    "GPES",
    "GymnasiumTask",
    "HostTask",
    "NRES",
    "PES",
    "Recurrent",
    "Task",
    "TruncatedES",
    "UnrolledModel",
    "fold_in",
    "normal",
    "uniform",
]
