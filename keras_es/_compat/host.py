"""Private names of layers and trainers, each with what it is for."""

import contextlib
import threading
import types
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.layers.convolutional import base_conv
from keras.src.losses.loss import unscale_loss_for_distribution
from keras.src.models import functional
from keras.src.trainers.trainer import model_supports_jit
from tensorflow.python.ops import control_flow_util

__all__ = [
    "BaseConv",
    "Mixin",
    "TrainerHooks",
    "add_weights_to_built_layer",
    "added_losses",
    "batch_spec",
    "call_is_known",
    "called_apart",
    "compute_loss",
    "direct_sublayers",
    "discard_weights",
    "forward",
    "get_keras_mask",
    "has_input",
    "in_xla",
    "inputs_of",
    "is_functional",
    "is_plain_functional",
    "is_plain_graph",
    "local",
    "loss_tracker",
    "losses_of_outputs",
    "maybe_merge_call",
    "metrics_variables_before_metrics",
    "model_supports_jit",
    "output_masks",
    "own_variables",
    "rebind_methods",
    "seed_states",
    "set_keras_mask",
    "set_output_masks",
    "track_in_checkpoints",
    "unscale_loss_for_distribution",
    "untrack_in_checkpoints",
]

# One value for each thread: MirroredStrategy traces its replicas in threads.
local = threading.local()


def called_apart(function, **kwargs):
    """Return a `tf.function` that TensorFlow leaves as a call in the graphs around it.

    It is then optimized once and by itself, not again in each place.
    """
    attributes = {"_noinline": True}
    return tf.function(
        function, autograph=False, experimental_attributes=attributes, **kwargs
    )


def in_xla():
    """Tell whether a function is being traced that XLA will compile."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def maybe_merge_call(function, strategy, *args):
    """Call a function of (strategy, *args) outside of the replicas, if that is needed.

    TensorFlow's own optimizers assign so: where replicas run as one program they need
    not be left, and a `merge_call` would split the program.
    """
    return tf.__internal__.distribute.interim.maybe_merge_call(
        function, strategy, *args
    )


def direct_sublayers(layer):
    """Return the layers that `layer` tracks itself, in the order of creation."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_variables(layer):
    """Return the variables of the layer itself, not of its sublayers or seeds."""
    return layer._trainable_variables + layer._non_trainable_variables


def seed_states(layer):
    """Return the states of the random generators of the layer itself."""
    return [generator.state for generator in layer._seed_generators]


@contextlib.contextmanager
def add_weights_to_built_layer(layer):
    """Let `add_weight` work on a layer whose state Keras has locked at build."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._tracker.lock()


def track_in_checkpoints(layer, value, name=None):
    """Let `tf.train.Checkpoint` find a weight or state that is no attribute."""
    layer._track_trackable(value, name or value.name, overwrite=True)


def untrack_in_checkpoints(layer, names):
    """Let `tf.train.Checkpoint` forget what it was told of a layer."""
    for name in names:
        layer._delete_tracking(name)


def discard_weights(layer, variables):
    """Make a layer forget some of its non-trainable weights."""
    drop = {id(v) for v in variables}
    with add_weights_to_built_layer(layer):
        for variable in variables:
            layer._untrack_variable(variable)
            layer._delete_tracking(variable.name)
    for name, value in list(vars(layer).items()):
        if id(value) in drop:
            object.__delattr__(layer, name)


def inputs_of(model):
    """Return the structure of a model's inputs, or None if it is not known."""
    model = getattr(model, "_functional", None) or model  # inside of a Sequential
    return getattr(model, "_inputs_struct", None)


def has_input(model):
    """Tell whether a Sequential model was given an Input, or has made one."""
    return isinstance(next(iter(model._layers), None), keras.layers.InputLayer)


def is_functional(model):
    """Tell whether a model was made from inputs and outputs."""
    return isinstance(model, functional.Functional)


def is_plain_functional(model):
    """Tell whether a model was made by `keras.Model(inputs, outputs)` itself."""
    return type(model) is functional.Functional


def is_plain_graph(model):
    """Tell whether a functional model's class is made from inputs and outputs alone."""
    return is_functional(model) and functional.functional_like_constructor(type(model))


def rebind_methods(layer):
    """Let methods that Keras wrapped when a layer was made be those of its class now.

    Keras puts `build` and `quantize` into each layer as functions that hold the method
    of the class it was made with, which a change of `__class__` leaves behind.
    """
    for name, wrapper in vars(layer).items():
        for cell in getattr(wrapper, "__closure__", None) or ():
            held = cell.cell_contents
            bound = isinstance(held, types.MethodType) and held.__self__ is layer
            if bound and held.__name__ == name:
                cell.cell_contents = getattr(type(layer), name).__get__(layer)


def call_is_known(model):
    """Let a model whose graph is known be exported, though nobody called it yet."""
    graph = is_functional(model) or isinstance(model, keras.Sequential)
    if graph and model.inputs:
        model._called = True


def forward(model, x, training):
    """Call the model as Keras's own steps do."""
    if model._call_has_training_arg:
        return model(x, training=training)
    return model(x)


def output_masks(y_pred):
    """Return the masks of time steps that outputs carry: {number of output: mask}."""
    outputs = enumerate(keras.tree.flatten(y_pred))
    masks = {str(i): get_keras_mask(output) for i, output in outputs}
    return {i: mask for i, mask in masks.items() if mask is not None}


def set_output_masks(y_pred, masks):
    """Let outputs carry the masks that `output_masks` returned."""
    outputs = keras.tree.flatten(y_pred)
    for i, mask in masks.items():
        set_keras_mask(outputs[int(i)], mask)


def compute_loss(model, x, y, y_pred, sample_weight):
    """Return the total training loss, through `compute_loss` of the user if any."""
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
    )


def loss_tracker(model):
    """Return the metric behind the `loss` of the history."""
    return model._loss_tracker


def added_losses():
    """Return what layers have given to `add_loss` in the scope around, a list."""
    return list(get_stateless_scope().losses)


def losses_of_outputs(model):
    """Return the metrics behind the losses of single outputs of a compiled model."""
    compiled = model._compile_loss
    return [] if compiled is None else list(compiled.metrics)


def metrics_variables_before_metrics(model):
    """Return the variables of metrics that may be updated before `compute_metrics` is.

    All but the `loss` of the history and the metrics given to `compile`.
    """
    later = [m for m in (model._loss_tracker, model._compile_metrics) if m is not None]
    others = {id(v) for metric in later for v in metric.variables}
    return [v for v in model.metrics_variables if id(v) not in others]


BaseConv = base_conv.BaseConv
"""What all plain convolutions are derived from."""


Mixin: Any = object
"""Base of mixins: the class that they are put before has what they call."""


class TrainerHooks(Mixin):
    """Overrides of private hooks of Keras's trainer, to be put before `keras.Model`."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Build model, metrics and optimizer before the step is traced.

        Variables cannot be created inside the stateless scope of a member. Keras takes
        the first batch of the iterator for it: this moves stateful shuffles on, and
        fails with several workers.
        """
        if data_batch is None and iterator is not None:
            spec = batch_spec(iterator)
        else:
            spec = data_batch
        if self._distribute_strategy is None and not self.has_members():
            super()._maybe_symbolic_build(iterator, data_batch)
        else:
            if spec is None and iterator is not None:
                spec = _first_batch(iterator)
            with self.distribute_strategy.scope():
                self._symbolic_build(data_batch=spec)
        if spec is not None:
            self.batch_is_known(spec)

    def _run_through_graph(self, inputs, operation_fn=None, *args, **kwargs):
        """Follow `keras.models.clone_model`, which makes each layer by its config."""
        if operation_fn is None:
            return super()._run_through_graph(inputs, *args, **kwargs)
        made = []

        def noted(operation):
            found = operation_fn(operation)
            # In a call of the model it is no layer, but what calls one.
            if isinstance(found, keras.layers.Layer) and found is not operation:
                made.append((operation, found))
            return found

        outputs = super()._run_through_graph(inputs, noted, *args, **kwargs)
        for layer, copy in made:
            self.layer_is_copied(layer, copy)
        return outputs

    def layer_is_copied(self, layer, copy):
        """Follow a layer and its copy, which has been built.

        Args:
            layer: Layer of this model.
            copy: What was made of it.
        """

    def batch_is_known(self, batch):
        """Follow the structure of the batches, once the model is built.

        Args:
            batch: (x, y, sample_weight) or less, of tensors, arrays or specs.
        """

    def _get_metrics_result_or_logs(self, logs):
        """Return the logs of the last step, with what the metrics say of all steps.

        Keras does so only if a step returns nothing but metrics. A replica's own
        result in the last step is not that of all replicas.
        """
        metrics = self.get_metrics_result()
        if isinstance(logs, dict) and set(metrics) <= set(logs):
            return {**logs, **metrics}
        return logs


def batch_spec(iterator):
    """Return the structure of one replica's batch as tensor specs, or None.

    The host builds a model from the first batch of the iterator, which reduces
    PerReplica batches eagerly (and fails with several workers) and moves stateful
    shuffles on. The specs say the same without touching the data.
    """
    dataset = getattr(iterator, "_distributed_dataset", None)
    spec = getattr(dataset, "element_spec", None)
    if spec is None:
        return None
    spec = keras.tree.map_structure(
        lambda s: s._value_specs[0] if hasattr(s, "_value_specs") else s, spec
    )
    known = [
        hasattr(s, "shape") and s.shape.rank is not None
        for s in keras.tree.flatten(spec)
    ]
    return spec if all(known) else None


def _first_batch(iterator):
    """Return one replica's part of the first batch."""
    for _, _, batches in iterator:
        batch = batches[0] if isinstance(batches, (list, tuple)) else next(batches)
        break
    return keras.tree.map_structure(
        lambda v: v.values[0] if isinstance(v, tf.distribute.DistributedValues) else v,
        batch,
    )
