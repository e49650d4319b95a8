"""`Logs`: what `fit` and `evaluate` say of windows."""

from typing import Any

import tensorflow as tf

from keras_es import _compat
from keras_es.unrolled import batches


class Logs(_compat.Mixin):
    """Put before `keras.Model`: tells its metrics what windows found."""

    _members: Any
    _non_finite: Any
    _episode_loss: Any

    def get_metrics_result(self):
        """Return the metrics' values; a mean of nothing is NaN, not a loss of 0.

        Of 0 `EarlyStopping` would think that it is the best.
        """
        result = super().get_metrics_result()
        means = {"loss": _compat.loss_tracker(self), "episode_loss": self._episode_loss}
        for name, mean in means.items():
            some = tf.convert_to_tensor(mean.count) > 0
            result[name] = tf.where(some, result[name], float("nan"))
        return result

    @property
    def _has_metrics(self):
        return _compat.compile_metrics(self) is not None

    def _check_metrics(self, spec):
        """Raise a ValueError if there is nothing that metrics could compare."""
        if not self._has_metrics:
            return
        pairs = isinstance(spec, tuple) and len(spec) > 1
        if self._members.output_spec is None or not pairs:
            raise ValueError(
                "`metrics` compare the outputs of a task, as `Recurrent` has them, "
                "with the targets of data (x, y). Leave `metrics` out of `compile`. "
                f"Received: metrics with {type(self._members.task).__name__}, "
                f"data {spec}"
            )

    def _build_metrics(self, spec):
        metrics = _compat.compile_metrics(self)
        if metrics is not None and not metrics.built:  # Before the step is traced.
            known = batches.metric_specs(spec, self._members.output_spec)
            with self.distribute_strategy.scope():
                metrics.build(*known)

    def _logs(self, found, data, copies):
        """Tell the metrics; each replica of its own particles."""
        loss = tf.math.divide_no_nan(found.loss, found.steps)
        _compat.loss_tracker(self).update_state(loss, sample_weight=found.steps)
        self._non_finite.update_state(found.non_finite)
        mean = tf.math.divide_no_nan(found.episode_loss, found.episodes)
        self._episode_loss.update_state(mean, sample_weight=found.episodes)
        if found.outputs is not None:
            x, y, *_ = data
            y = tf.tile(y, (copies,) + (1,) * (y.shape.rank - 1))
            self.compute_metrics(x, y, found.outputs)
        return self.get_metrics_result()
