"""What `fit` and `evaluate` need under strategies of several replicas or workers.

Keras 3 has four gaps there. Its steps are not compiled by XLA, which does not know the
collectives; moving statistics of each replica go their own way; several steps in one
execution fail; and with several workers, neither building a model nor reducing the logs
works at all (keras#20585).
"""

import itertools
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution.collectives import (
    assign_all,
    in_multi_worker,
    mean_over_replicas,
)


class Replicated(_compat.TrainerHooks):
    """Put before `keras.Model`; without a strategy it is that."""

    jit_compile: bool  # Keras's
    _jit_compile_members = False
    train_function: Any
    test_function: Any

    def train_step(self, data):
        """Train the weights by plain gradients, on every replica alike."""
        if not tf.distribute.has_strategy():
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        step = _PlainStep(self, x, y, sample_weight)
        loss, y_pred, gradients, state, metrics = step.run(self._jit_compile_members)
        self.optimizer.apply(gradients, step.trained)
        assign_all(average_state(step.touched, state))
        for variable, value in zip(step.metrics, metrics):
            variable.assign(value)
        _compat.loss_tracker(self).update_state(loss, sample_weight=step.examples)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    @property
    def compiled_by_xla(self) -> bool:
        """Whether XLA compiles the train step, or what each replica does in it."""
        return bool(self.jit_compile or self._jit_compile_members)

    def make_train_function(self, force=False):
        """Compile the train step; with several workers, join them at each step."""
        if self.train_function is not None and not force:
            return
        if in_multi_worker(self.distribute_strategy):
            self.train_function = JoinedStep(self, self.train_step)
            return
        super().make_train_function(force)
        self.train_function = self._looping(self.train_function)

    def make_test_function(self, force=False):
        """Compile the test step, as `make_train_function`."""
        if self.test_function is not None and not force:
            return
        if in_multi_worker(self.distribute_strategy):
            self.test_function = JoinedStep(self, self.test_step)
            return
        super().make_test_function(force)
        self.test_function = self._looping(self.test_function)

    def _looping(self, function):
        """Return a function of several steps whose loop is not in its graph.

        Keras's loop over `steps_per_execution` cannot hold the collectives of a
        MirroredStrategy ("You must feed a value for placeholder"). From what is not
        an iterator of TensorFlow it takes batch by batch.
        """
        mirrored = isinstance(
            self.distribute_strategy,
            (
                tf.distribute.MirroredStrategy,
                tf.distribute.MultiWorkerMirroredStrategy,
            ),
        )
        if self.steps_per_execution == 1 or not mirrored:
            return function

        def steps(iterator):
            return function(itertools.chain([next(iterator)], iterator))

        return steps


class _PlainStep:
    """Loss, gradients and new state of one replica's share of a batch."""

    def __init__(self, model, x, y, sample_weight):
        self.model, self.batch = model, (x, y, sample_weight)
        first = next(i for i in keras.tree.flatten(x) if i is not None)
        self.examples, self.never_empty = tf.shape(first)[0], bool(first.shape[0])
        self.variables = list(model.trainable_variables)
        self.trained, self.touched, self.metrics = [], [], []

    def run(self, jit_compile):
        """Return loss, outputs, gradients of `trained`, new `touched` and `metrics`."""
        function = self._run
        if jit_compile:
            function = tf.function(function, autograph=False, jit_compile=True)
        loss, y_pred, masks, gradients, state, metrics = function()
        # A compiled function returns tensors without the masks of their time steps.
        _compat.set_output_masks(y_pred, masks)
        return loss, y_pred, gradients, state, metrics

    def _run(self):
        values = [tf.convert_to_tensor(v.value) for v in self.variables]
        mapping = list(zip(self.variables, values))
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            with scope:
                loss, scaled, y_pred = self._losses(*self.batch)
        gradients = tape.gradient(scaled, values)
        known = [(v, g) for v, g in zip(self.variables, gradients) if g is not None]
        self.trained[:] = [v for v, _ in known]
        state = _assigned(scope, self.model.non_trainable_variables)
        # By the call or the loss: the losses of single outputs are metrics.
        metrics = _assigned(scope, self.model.metrics_variables)
        self.touched[:], self.metrics[:] = ([v for v, _ in p] for p in (state, metrics))
        gradients = [self._of_examples(tf.convert_to_tensor(g)) for _, g in known]
        state = [self._of_examples(value, v.value) for v, value in state]
        metrics = [value for _, value in metrics]
        loss, masks = self._of_examples(loss), _compat.output_masks(y_pred)
        return loss, y_pred, masks, gradients, state, metrics

    def _of_examples(self, value, before=0.0):
        """Return a value, or what was before where it is the mean of no examples.

        Of a last batch some replicas may get nothing, and 0 / 0 would be everybody's.
        """
        if self.never_empty or not value.dtype.is_floating:
            return value
        before = tf.cast(tf.convert_to_tensor(before), value.dtype)
        known = tf.logical_or(self.examples > 0, tf.math.is_finite(value))
        return tf.where(known, value, before)

    def _losses(self, x, y, sample_weight):
        y_pred = _compat.forward(self.model, x, training=True)
        loss = _compat.compute_loss(self.model, x, y, y_pred, sample_weight)
        plain = _compat.unscale_loss_for_distribution(loss)
        return plain, self.model.optimizer.scale_loss(loss), y_pred


def _assigned(scope, variables):
    """Return (variable, value) of those that were assigned in a scope."""
    found = [(v, scope.get_current_value(v)) for v in variables]
    return [(v, tf.cast(x, v.value.dtype)) for v, x in found if x is not None]


def average_state(
    variables: Iterable[Any], values: Iterable[tf.Tensor]
) -> list[tuple[Any, tf.Tensor]]:
    """Return (variable, value) with floats, such as moving statistics, averaged.

    Other state, such as the counters of random generators, is alike on all replicas.
    """
    floats = [i for i, value in enumerate(values) if value.dtype.is_floating]
    values = list(values)
    for i, mean in zip(floats, mean_over_replicas([values[i] for i in floats])):
        values[i] = mean
    return list(zip(variables, values))


class JoinedStep:
    """What Keras calls for each step with several workers, in place of its own.

    Keras's function reduces each log by itself, and those that are scalars not at all;
    its loop over `steps_per_execution` cannot hold the collectives; and where the data
    ends it may count a step that was none. Here all logs of a step travel in one
    vector. Its first number tells every worker, at the same step, that one has to stop.

    Args:
        model: The compiled model.
        step: Its `train_step` or `test_step`.
    """

    def __init__(self, model, step):
        self._model, self._step = model, step
        self._request = tf.Variable(0.0, trainable=False)
        self._logs, self._shapes = {}, []
        self._function = self._on_replicas
        if not model.run_eagerly:
            self._function = tf.function(
                self._on_replicas, autograph=False, reduce_retracing=True
            )
        self.stop_requested = False

    def request_stop(self, value: bool = True) -> None:
        """Ask all workers to stop after the next step."""
        self._request.assign(float(value))

    def __call__(self, iterator):
        """Run a step, or `steps_per_execution` of them, and return the last logs.

        Raises:
            StopIteration: If the data has ended.
        """
        numbers = None
        for _ in range(self._model.steps_per_execution):
            batch = next(iterator, None)
            if batch is None:
                break
            numbers = self._function(_without_optionals(batch))
        if numbers is None:
            raise StopIteration
        self.stop_requested = bool(numbers[0] > 0.0)
        parts = tf.split(numbers[1:], [shape.num_elements() for shape in self._shapes])
        parts = [tf.reshape(part, s) for part, s in zip(parts, self._shapes)]
        return keras.tree.pack_sequence_as(self._logs, parts)

    def _on_replicas(self, batch):
        strategy = self._model.distribute_strategy
        numbers = strategy.run(self._packed, args=(batch,))
        return strategy.experimental_local_results(numbers)[0]

    def _packed(self, batch):
        self._logs = logs = self._step(batch)
        values = [tf.convert_to_tensor(v) for v in keras.tree.flatten(logs)]
        self._shapes[:] = [v.shape for v in values]
        numbers = [tf.reshape(tf.cast(v, tf.float32), [-1]) for v in values]
        return mean_over_replicas([tf.concat([self._request[None], *numbers], axis=0)])[
            0
        ]


def _without_optionals(batch):
    """Return a batch with None for what is missing, as Keras's own steps do."""
    return keras.tree.map_structure(
        lambda v: None if isinstance(v, tf.experimental.Optional) else v, batch
    )
