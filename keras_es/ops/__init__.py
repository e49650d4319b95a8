"""Pure mathematics: functions from tensors to tensors, safe under XLA."""

from keras_es.ops import drop_grow as drop_grow
from keras_es.ops import fitness as fitness
from keras_es.ops import noise as noise
from keras_es.ops import search as search
from keras_es.ops import selection as selection

__all__ = ["drop_grow", "fitness", "noise", "search", "selection"]
