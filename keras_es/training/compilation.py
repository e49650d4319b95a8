"""What XLA compiles of a model's training, apart or together."""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.layers import tree
from keras_es.layers.masked_weight import effective_weights


def xla_wins(model):
    """Tell whether `jit_compile="auto"` compiles this model, for all that it knows.

    Not if Keras knows that it cannot be compiled, nor on CPU if it has convolutions:
    they take twice as long under XLA there. What operations it has is seen with the
    first batch (`unknown_to_xla`).
    """
    if not _compat.model_supports_jit(model):
        return False
    if any(d.device_type != "CPU" for d in tf.config.list_physical_devices()):
        return True
    convolutions = (_compat.BaseConv, keras.layers.DepthwiseConv2D)
    return not any(isinstance(layer, convolutions) for _, layer in tree.walk(model))


def unknown_to_xla(model, batch, trains=True):
    """Return the types of what a step does that XLA cannot compile.

    A trace on the side, which runs nothing: to compile and see what happens would be
    too late, for parts of the step have then been done.

    Args:
        model: Built and compiled model.
        batch: (x, y, sample_weight) or less, of tensors, arrays or specs.
        trains: Whether it is a step of training; else a call with the inputs `batch`.

    Returns:
        Set of strings, names of operations or of kinds of tensors; empty if there are
        none, or if the trace fails: the step will then fail in the same way, and say
        it better.
    """
    parts = keras.tree.flatten(batch)
    kinds = {_kind(part) for part in parts if part is not None} - {None}
    if kinds:
        return kinds
    specs = keras.tree.map_structure(_spec, batch)
    # `tf.function` takes no None among the specs of its arguments.
    known = [s for s in keras.tree.flatten(specs) if s is not None]

    def step(*values):
        following = iter(values)
        batch = keras.tree.map_structure(
            lambda s: None if s is None else next(following), specs
        )
        if trains:
            _train(model, *keras.utils.unpack_x_y_sample_weight(batch))
        else:
            _compat.forward(model, batch, training=False)

    try:
        traced = tf.function(step, autograph=False).get_concrete_function(*known)
    except Exception:
        return set()
    return _compat.unknown_to_xla(traced.graph)


def _train(model, x, y, sample_weight):
    """Do what a member does with a batch, but leave no trace in the model."""
    scope = keras.StatelessScope(collect_losses=True)
    with scope, effective_weights():
        y_pred = _compat.forward(model, x, training=True)
        _compat.compute_loss(model, x, y, y_pred, sample_weight)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        fitness = getattr(model.optimizer, "fitness", None)
        if fitness is not None:
            fitness(y, y_pred)


def _kind(part):
    """Return what a tensor is called that XLA has no form for, else None."""
    for kind in ("RaggedTensor", "SparseTensor"):
        if type(part).__name__.startswith(kind):
            return kind
    return "string" if _dtype(part) == tf.string else None


def _dtype(part):
    dtype = getattr(part, "dtype", None) or tf.convert_to_tensor(part).dtype
    return tf.as_dtype(dtype)


def _spec(part):
    if part is None:
        return None
    return tf.TensorSpec(getattr(part, "shape", ()), _dtype(part))


class Parts:
    """Calls the parts of a step, compiled by XLA or not, apart or together.

    The parts that XLA compiles are functions of their own and not one program: what
    happens once in a generation (masks are drawn, scores move) is left out in other
    steps, which inside of one program would copy all of its state; and collectives
    cannot be compiled.

    Args:
        jit_compile: Whether XLA compiles.
        together: Whether members and updates may be one program.
    """

    def __init__(self, jit_compile, together):
        self.jit_compile = jit_compile
        self.alone = not tf.distribute.has_strategy()
        self.together = self.alone and together

    def compiled(self, function):
        """Call a function of no arguments, compiled by XLA if that is wanted."""
        if not self.jit_compile:
            return function()
        # Made anew at each trace of the step, of which it is a part: what it captures
        # are tensors of that trace.
        return tf.function(function, autograph=False, jit_compile=True)()

    def all_in_one(self, function):
        """Call what holds a whole step: one program, or others are called within."""
        return self.compiled(function) if self.together else function()

    def within(self, function):
        """Call what replicas have to be asked about, unless it is in one program.

        A strategy's replicas exchange sums in it, which XLA does not know.
        """
        if self.alone and not self.together:
            return self.compiled(function)
        return function()

    def rare(self, function):
        """Call a function that runs once in many steps.

        Without XLA as a function that is not put into the step's graph: it is then
        optimized by itself, and only when it is first called.
        """
        if self.jit_compile or not self.alone or tf.executing_eagerly():
            return self.compiled(function)
        return _compat.called_apart(function)()

    def rare_within(self, function):
        """Call a rare function that replicas exchange sums in."""
        return self.rare(function) if self.alone else function()
