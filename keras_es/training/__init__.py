"""Models whose `fit` moves masks."""

from keras_es.training.model import ESMixin, ESModel, ESSequential

__all__ = ["ESMixin", "ESModel", "ESSequential"]
