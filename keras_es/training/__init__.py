"""Models whose `fit` moves masks."""

from keras_es.training.model import ESMixin
from keras_es.training.models import ESModel, ESSequential

__all__ = ["ESMixin", "ESModel", "ESSequential"]
