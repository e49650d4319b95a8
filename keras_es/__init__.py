"""Sparse and non-differentiable training for Keras 3 on TensorFlow."""

from keras_es import (
    callbacks,
    datasets,
    layers,
    lottery,
    noise,
    ops,
    optimizers,
    patterns,
    plots,
    schedules,
    unrolled,
)
from keras_es.conversion.channel_groups import channel_groups
from keras_es.conversion.compact.counting import multiplications_per_weight
from keras_es.conversion.compact.report import CompactionReport, compaction_report
from keras_es.conversion.export import export
from keras_es.conversion.models import es_model
from keras_es.conversion.report import SparsityReport, sparsity_report
from keras_es.conversion.sparsify import sparsify
from keras_es.conversion.strip import strip_masks
from keras_es.layers.tree import masked_weights
from keras_es.optimizers.evolve import evolve
from keras_es.optimizers.minimize import minimize
from keras_es.training.model import ESMixin
from keras_es.training.models import ESModel, ESSequential

__version__ = "0.1.0"

__all__ = [
    "CompactionReport",
    "ESMixin",
    "ESModel",
    "ESSequential",
    "SparsityReport",
    "callbacks",
    "channel_groups",
    "compaction_report",
    "datasets",
    "es_model",
    "export",
    "evolve",
    "layers",
    "lottery",
    "masked_weights",
    "minimize",
    "multiplications_per_weight",
    "noise",
    "ops",
    "optimizers",
    "patterns",
    "plots",
    "schedules",
    "sparsify",
    "sparsity_report",
    "strip_masks",
    "unrolled",
]
