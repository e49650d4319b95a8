"""What models need that are never called on a batch: their steps do something else."""

__all__ = ["OwnSteps", "compile_metrics", "loss_weights"]


class OwnSteps:
    """Put before a `TrainerHooks` that is built before `fit` takes a batch."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass


def loss_weights(model):
    """Return the `loss_weights` that a model was compiled with, or None."""
    return getattr(model._compile_loss, "_user_loss_weights", None)


def compile_metrics(model):
    """Return what builds and updates the metrics given to `compile`, or None."""
    return model._compile_metrics
