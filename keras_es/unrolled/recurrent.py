"""`Recurrent`: a recurrent Keras model as a task over a stream of (x, y)."""

import contextlib

import keras
import tensorflow as tf

from keras_es.layers import tree
from keras_es.unrolled.members import reading
from keras_es.unrolled.task import Task, same_state


@keras.saving.register_keras_serializable(package="keras_es")
class Recurrent(Task):
    """Trains a recurrent Keras model by losses alone, window by window of a stream.

    The state of a particle is the states of the model's recurrent layers; L_t is the
    loss of the output at time t. Cells may be gated by steps, quantized, or do anything
    else: no gradient is taken, and no window has to be remembered.

    The data of `fit` is a `tf.data.Dataset` of (x, y) with leaves [particles * rows,
    unroll_length, ...], rows of which go on from batch to batch, as for stateful models
    in Keras. After `horizon` steps a particle's states begin at zero again. By default
    particles do so at times of their own, which suits a text without end; where
    sequences begin, with data made for it, take `locked=True`.

    The model is called with `training=False` on one time step at once.

    Args:
        model: A built Keras model with inputs of shape (rows, None, ...) and one
            output (rows, None, ...), all of whose recurrent layers have
            `stateful=True` and `return_sequences=True`.
        loss: Keras loss, its name, or a function of (y_true, y_pred) of shapes
            [rows, 1, ...].
        horizon: T, steps after which states begin anew.
        **kwargs: `name` and others of `keras.layers.Layer`.

    Raises:
        ValueError: If the model has no recurrent layers, or some that one time step
            at once is another computation for.

    Example:

    >>> inputs = keras.Input(batch_shape=(2, None, 3))
    >>> hidden = keras.layers.GRU(4, stateful=True, return_sequences=True)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    >>> task = keras_es.unrolled.Recurrent(model, "mse", horizon=20)
    >>> learner = keras_es.unrolled.UnrolledModel(task)
    >>> learner.compile(
    ...     keras_es.unrolled.NRES("adam", particles=4, unroll_length=5, sigma=0.1)
    ... )
    >>> x = tf.random.normal((8, 20, 3))  # 4 particles of 2 rows, 4 windows
    >>> windows = tf.data.Dataset.from_tensor_slices(
    ...     [x[:, 5 * i : 5 * i + 5] for i in range(4)]
    ... )
    >>> stream = windows.map(lambda x: (x, tf.reduce_sum(x, axis=-1, keepdims=True)))
    >>> history = learner.fit(stream, epochs=2, verbose=0)
    """

    def __init__(self, model, loss, *, horizon, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(model, keras.Model) or not model.built:
            raise ValueError(
                "`model` must be a built Keras model. "
                f"Received: model={type(model).__name__}"
            )
        for x in getattr(model, "inputs", []):
            if len(x.shape) < 2 or x.shape[1] not in (None, 1):
                raise ValueError(
                    "`model` must be built for any number of time steps: "
                    "`keras.Input(batch_shape=(rows, None, ...))`. "
                    f"Received: an input of shape {x.shape}"
                )
        self._layers = _recurrent_layers(model)
        if loss is None:
            raise ValueError(
                "`loss` must be a Keras loss, its name or a function of (y_true, "
                "y_pred). Received: loss=None"
            )
        self.model, self.loss, self.horizon = model, keras.losses.get(loss), horizon
        self.state_variables = tf.nest.flatten([x.states for x in self._layers])
        self.rows = self.state_variables[0].shape[0]

    def initial_state(self, seed, data=None):
        return [tf.zeros(v.shape, v.dtype) for v in self.state_variables]

    def observe(self, state, t, seed, data=None):
        """Return (state, loss, done, outputs) of one time step."""
        if not isinstance(data, tuple) or len(data) != 2:
            parts = f" of {len(data)}" if isinstance(data, tuple) else ""
            raise ValueError(
                "`Recurrent` needs data of (x, y): `fit(dataset)`. Received: "
                f"{'none' if data is None else type(data).__name__ + parts}"
            )
        x, y = (tf.nest.map_structure(lambda a: a[:, None], part) for part in data)
        new, outputs = self._step(state, x)
        if not tf.is_tensor(outputs) or outputs.shape.rank < 2 or outputs.shape[1] != 1:
            raise ValueError(
                "The model of `Recurrent` must return one tensor [rows, time, ...], of "
                "as much time as it is given. Received: for one time step "
                f"{tf.nest.map_structure(lambda a: a.shape, outputs)}"
            )
        loss = self.loss(_of_same_rank(y, outputs), outputs)
        loss = tf.reduce_mean(tf.cast(loss, tf.float32))
        return same_state(self, state, new), loss, None, outputs[:, 0]

    def step(self, state, t, seed, data=None):
        return self.observe(state, t, seed, data)[:2]

    def _step(self, state, x):
        """Call the model, whose variables a member's scope may have mapped already."""
        mapping = list(zip(self.state_variables, state))
        # Keras draws masks of dropout without training, too, and leaves them unused.
        drawing = _seed_variables(self._layers)
        weights = [(v, tf.convert_to_tensor(v)) for v in self.model.trainable_variables]
        with (
            reading(
                self, [*weights, *mapping], [*self.state_variables, *drawing]
            ) as scope,
            _unrolled(self._layers),
        ):
            outputs = self.model(x, training=False)
            new = [scope.get_current_value(v) for v in self.state_variables]
        return [tf.convert_to_tensor(v) for v in new], outputs

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        config = super().get_config()
        return {
            **config,
            "model": serialize(self.model),
            "loss": serialize(self.loss),
            "horizon": self.horizon,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("model", "loss"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def _of_same_rank(y, outputs):
    """Give targets [rows, 1] of outputs [rows, 1, 1] their last axis.

    Keras's losses do; a function of one's own would broadcast all rows with all.
    """
    lacks = tf.is_tensor(y) and y.shape.rank == outputs.shape.rank - 1
    return y[..., None] if lacks and outputs.shape[-1] == 1 else y


def _seed_variables(layers):
    """Return the variables of layers that are no weights: states of random numbers."""
    weights = {id(v) for layer in layers for v in layer.weights}
    return [v for layer in layers for v in layer.variables if id(v) not in weights]


@contextlib.contextmanager
def _unrolled(layers):
    """Let layers take their one time step without a loop.

    A loop could not be vectorized over particles.
    """
    before = [layer.unroll for layer in layers]
    for layer in layers:
        layer.unroll = True
    try:
        yield
    finally:
        for layer, unroll in zip(layers, before):
            layer.unroll = unroll


def _recurrent_layers(model):
    """Return the recurrent layers of a model.

    Raises:
        ValueError: If there are none, or step by step they would not do the same.
    """
    found = []
    for path, layer in tree.walk(model):
        if isinstance(layer, keras.layers.Bidirectional):
            raise ValueError(
                "`model` is stepped through time, and must not look ahead. "
                f"Received: layer {path!r} of type Bidirectional"
            )
        if not isinstance(layer, keras.layers.RNN):
            continue
        if not layer.stateful or not layer.return_sequences or layer.go_backwards:
            raise ValueError(
                "All recurrent layers of `model` must have `stateful=True`, "
                "`return_sequences=True` and `go_backwards=False`, for they take one "
                f"time step at once. Received: layer {path!r} with "
                f"stateful={layer.stateful}, return_sequences={layer.return_sequences}"
                f", go_backwards={layer.go_backwards}"
            )
        found.append(layer)
    if not found:
        raise ValueError(
            "`model` must have recurrent layers with `stateful=True`, built with "
            "their rows: `keras.Input(batch_shape=(rows, None, features))`. "
            "Received: a model without"
        )
    return found
