"""`Calls`: what Keras's models can be called for and an unrolled computation cannot."""

from keras_es import _compat

_FIT = {
    "verbose", "callbacks", "validation_data", "validation_steps", "validation_freq",
    "initial_epoch",
}  # fmt: skip
_EVALUATE = {"verbose", "callbacks", "return_dict"}


class Calls(_compat.Mixin):
    """Put before `keras.Model`: refuses what has no meaning for windows."""

    def call(self, inputs):
        """Not used: a task is unrolled by `fit` and `evaluate`."""
        raise NotImplementedError(
            "An `UnrolledModel` is not called. Use `fit` and `evaluate`; its weights "
            "are those of `model.task`."
        )

    def train_on_batch(self, *args, **kwargs):
        """Not used: call `fit` with `steps_per_epoch=1`."""
        raise NotImplementedError(
            "An `UnrolledModel` has no `train_on_batch`. Use `fit`; one window is "
            "`fit(steps_per_epoch=1)`."
        )

    def test_on_batch(self, *args, **kwargs):
        """Not used: call `evaluate`."""
        raise NotImplementedError(
            "An `UnrolledModel` has no `test_on_batch`. Use `evaluate`."
        )


def check_fit(arguments):
    """Raise a ValueError for arguments of Keras's `fit` that windows do not heed."""
    _check("fit", arguments, _FIT)


def check_evaluate(arguments):
    """Raise a ValueError for arguments of `evaluate` that windows do not heed."""
    _check("evaluate", arguments, _EVALUATE)


def _check(name, arguments, known):
    # Keras's `fit` calls `evaluate` with all it has, mostly None.
    given = {k for k, v in arguments.items() if v is not None and not k.startswith("_")}
    if given - known:
        raise ValueError(
            f"`{name}` of an `UnrolledModel` takes a `tf.data.Dataset` or nothing, in "
            "the order of time, with equal weights for all particles. Besides it takes "
            f"{', '.join(sorted(known))}. Received: {', '.join(sorted(given - known))}"
        )
