"""`ESMixin`: models whose masks move in their train step."""

import functools
import warnings
import weakref

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution.collectives import is_chosen
from keras_es.distribution.strategies import (
    refuse_keras_distribution,
    refuse_other_scope,
)
from keras_es.distribution.trainer import Replicated
from keras_es.layers import tree
from keras_es.layers.brought import check_weights
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.settling import settle
from keras_es.training.compilation import unknown_to_xla, xla_wins
from keras_es.training.logs import nan_of_nothing
from keras_es.training.step import Step

_SEED = "random_state_"


class ESMixin(Replicated):
    """Put before `keras.Model` to train masks by a `MaskOptimizer` through `fit`.

    With any other optimizer the model trains as in plain Keras, with its masks fixed.
    The deployed masks are current after every step, so `evaluate`, `predict`, `save`
    and `export` need no callback.

    A subclassed model that holds masked layers swapped in by `sparsify` must pass
    the config of `super().get_config()` on, so that they are swapped again on load.

    Example:

    ```python
    class MyModel(keras_es.ESMixin, keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras_es.layers.MaskedDense(64, sparsity=0.9)
            self.out = keras.layers.Dense(10)

        def call(self, x):
            return self.out(self.hidden(x))
    ```
    """

    _fits = _xla_is_unsure = False
    check_gradients = True
    """Whether a member whose gradient is not finite counts as failed (`compile`)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
        check_gradients=True,
        **kwargs,
    ):
        """Configure training, as `keras.Model.compile`.

        Args:
            optimizer: A `keras_es.optimizers` object, or any Keras optimizer.
            loss: See Keras.
            loss_weights: See Keras.
            metrics: See Keras.
            weighted_metrics: See Keras.
            run_eagerly: See Keras.
            steps_per_execution: See Keras.
            jit_compile: True, False or "auto": XLA where it can and wins. It
                cannot compile Python (`tf.numpy_function`), strings and lookup
                tables: "auto" looks for them in model, loss, metrics and fitness when
                it sees the first batch. It wins, on CPU, for models without
                convolutions, which are slower under XLA there. Under a distribution
                strategy the members are compiled inside each replica.
            auto_scale_loss: Under `mixed_float16`, wrap the optimizer that trains
                the weights in a `LossScaleOptimizer`.
            check_gradients: Whether a member whose loss is finite, but whose gradient
                is not (a square root at 0), counts as failed and is left out: one
                pass over the gradients. False: such a gradient reaches weights and
                scores. With a `LossScaleOptimizer` gradients are not looked at in
                either case: where they are not finite, that skips the step of the
                weights and lowers its scale.
            **kwargs: What the model's own class takes besides, such as the `sampler`
                of a KerasHub task. Such a class's own defaults hold for `loss` and
                metrics that are left out.

        Raises:
            ValueError: If a `MaskOptimizer` is inside a `LossScaleOptimizer`, it or
                the model was made outside of the strategy's scope, or
                `keras.distribution` is in use, which is not for TensorFlow.
        """
        refuse_keras_distribution()
        if not isinstance(check_gradients, bool):
            raise ValueError(
                "`check_gradients` must be True or False. "
                f"Received: check_gradients={check_gradients!r}"
            )
        self.check_gradients = check_gradients
        optimizer = keras.optimizers.get(optimizer)
        inner = _compat.innermost_optimizer(optimizer)
        if isinstance(inner, MaskOptimizer):
            if inner is not optimizer:
                raise ValueError(
                    "Loss scaling belongs to the optimizer of the weights: "
                    f"{type(inner).__name__}(keras.optimizers.LossScaleOptimizer("
                    f"...)). Received: optimizer={type(optimizer).__name__}"
                    f"({type(inner).__name__}(...))"
                )
            refuse_other_scope(self, optimizer)
            optimizer.__dict__["model"] = weakref.ref(self)
            if auto_scale_loss and self.dtype_policy.name == "mixed_float16":
                optimizer.scale_inner_loss()
            auto_scale_loss = False
        self._jit_choice, self._xla_is_unsure = jit_compile, jit_compile == "auto"
        if jit_compile == "auto":
            jit_compile = not run_eagerly and xla_wins(self)
        # Keras cannot compile the step under a strategy, whose collectives XLA does
        # not know; what each replica does with its members it can.
        replicated = is_chosen(self.distribute_strategy)
        has_members = isinstance(inner, MaskOptimizer)
        self._jit_compile_members = bool(jit_compile) and (replicated or has_members)
        given = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        super().compile(
            optimizer=optimizer,
            **{name: value for name, value in given.items() if value is not None},
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=bool(jit_compile) and not replicated,
            auto_scale_loss=auto_scale_loss,
            **kwargs,
        )

    def get_compile_config(self):
        """Return what `compile` was given.

        Builds the optimizer's state: `compile_from_config` does so as well, and a
        file must hold what is then loaded.
        """
        if isinstance(getattr(self, "optimizer", None), MaskOptimizer) and self.built:
            self.optimizer.build(self.trainable_variables)
        config = super().get_compile_config()
        if config:
            config["jit_compile"] = self._jit_choice
        if config and not self.check_gradients:
            config["check_gradients"] = False
        return config

    def compile_from_config(self, config):
        """Compile from a saved config, and build the optimizer's state."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        """Train as `keras.Model.fit`; see there.

        At its end, masks whose sparsity schedule has ended have exactly the number of
        non-zeros that was asked for, whatever a callback restored.
        """
        self._follow_masks()
        self._fits = True
        try:
            history = super().fit(*args, **kwargs)
        finally:
            self._fits = False
        self._settle_masks()
        return history

    def set_weights(self, weights):
        """Set the weights, as `keras.Model.set_weights`; see `fit` for the masks.

        Raises:
            ValueError: If masks are of another sparsity or pattern; denser ones are
                those of an optimizer's schedule that begins dense.
        """
        optimizer = getattr(self, "optimizer", None)
        falls = getattr(optimizer, "sparsity_schedule", None) is not None
        exchanged = getattr(optimizer, "cost_of", None)
        masked = tree.masked_weights(self)
        check_weights(masked, self.weights, weights, falls, exchanged)
        super().set_weights(weights)
        self._follow_masks()
        self._settle_masks()

    def load_weights(self, *args, **kwargs):
        """Load weights, as `keras.Model.load_weights`; see `fit` for the masks."""
        super().load_weights(*args, **kwargs)
        self._follow_masks()
        self._settle_masks()

    def _follow_masks(self):
        if self.has_members():
            self.optimizer.follow_masks()

    def _settle_masks(self):
        # Callbacks may yet restore other weights while `fit` runs.
        if self._fits or not (self.has_members() and self.optimizer.built):
            return
        warning = settle(self.optimizer)
        if warning is not None:
            warnings.warn(warning, stacklevel=3)

    def train_step(self, data):
        """Run one step: ask, evaluate members, tell (see `MaskOptimizer`)."""
        if not self.has_members():
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return Step(self, self._jit_compile_members).run(x, y, sample_weight)

    def layer_is_copied(self, layer, copy):
        """Mask in the copy of a composite, whose config knows no masks, as here."""
        tree.mask_alike(layer, copy)

    def batch_is_known(self, batch):
        """Go without XLA if that was left to us, and it cannot compile the step."""
        if not (self.compiled and self._xla_is_unsure and self.compiled_by_xla):
            return
        self._xla_is_unsure = False
        if unknown_to_xla(self, batch):
            self._go_without_xla()

    def _go_without_xla(self):
        self.jit_compile = self._jit_compile_members = False
        self.train_function = self.test_function = self.predict_function = None

    def make_predict_function(self, force=False):
        """Compile the predict step, with XLA unless it cannot."""
        unsure = self.compiled and self._xla_is_unsure and self.compiled_by_xla
        inputs = _compat.inputs_of(self) if unsure else None
        if inputs is not None and unknown_to_xla(self, inputs, trains=False):
            self._go_without_xla()
        return super().make_predict_function(force)

    def make_train_function(self, force=False):
        """Compile the train step; `Step` itself compiles what XLA is to compile."""
        refuse_keras_distribution()
        jit_compile = self.jit_compile
        if self.has_members():
            self.jit_compile = False
        try:
            return super().make_train_function(force)
        finally:
            self.jit_compile = jit_compile

    def get_metrics_result(self):
        """Return the values of the metrics; NaN if all members failed so far."""
        results = super().get_metrics_result()
        in_replica = tf.distribute.has_strategy() and (
            not tf.distribute.in_cross_replica_context()
        )
        if in_replica or not self.has_members():
            return results
        return nan_of_nothing(self, results)

    def has_members(self):
        """Tell whether the optimizer evaluates a population."""
        return isinstance(getattr(self, "optimizer", None), MaskOptimizer)

    def get_config(self):
        """Return the model's config with the masks of its layers."""
        config = super().get_config()
        masks = tree.mask_map(self)
        if masks:
            config["mask_map"] = masks
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the model from its config and swap masked layers in again.

        A subclassed model has no weights yet; `build_from_config` swaps them there.
        """
        config = dict(config)
        masks = config.pop("mask_map", None)
        model = super().from_config(config, custom_objects=custom_objects)
        if masks and model.built:
            tree.apply_mask_map(model, masks)
        return model

    def get_build_config(self):
        """Return what `build_from_config` needs, with the masks of the layers."""
        config = super().get_build_config()
        masks = tree.mask_map(self)
        if config is not None and masks:
            config = {**config, "mask_map": masks}
        return config

    def build_from_config(self, config):
        """Build the model, then swap masked layers in again."""
        config = dict(config)
        masks = config.pop("mask_map", None)
        super().build_from_config(config)
        if masks:
            tree.apply_mask_map(self, masks)

    def save_own_variables(self, store):
        """Save the model's own variables and the states of all random generators.

        Keras leaves those of Dropout and the like out of its files; training would
        go on with other noise.
        """
        super().save_own_variables(store)
        for i, state in enumerate(tree.seed_states(self)):
            store[f"{_SEED}{i}"] = state.numpy()

    def load_own_variables(self, store):
        """Load what `save_own_variables` saved."""
        saved = {key: store[key] for key in store.keys()}
        for i, state in enumerate(tree.seed_states(self)):
            # A file of a model that is not an `ESModel` has none: noise begins anew.
            value = saved.pop(f"{_SEED}{i}", None)
            if value is not None:
                state.assign(value)
        super().load_own_variables(saved)
