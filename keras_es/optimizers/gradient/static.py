"""Fixed random masks, the baseline of every comparison."""

from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.registry import register


@register("static")
class Static(MaskOptimizer):
    """Keep every mask as it was made; only weights train.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        seed: Not used by this method; kept so that methods exchange freely.
        name: Name of the optimizer.

    Example:

    >>> Static("sgd").get_config()["seed"]
    0
    """
