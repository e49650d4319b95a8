"""A run that is stopped by a signal leaves a checkpoint after the step it is in."""

import signal
from types import FrameType
from typing import Any

import keras

from keras_es._arguments import integer, is_integer
from keras_es.distribution import workers
from keras_es.distribution.trainer import JoinedStep
from keras_es.runs.checkpoints import AtomicCheckpoint


class TrainingStopped(Exception):  # noqa: N818  (not an error)
    """Training ended at a signal.

    Args:
        signum: Number of the signal.
        step: Number of steps after which the run will continue.
    """

    __module__ = "keras_es.callbacks"  # where tracebacks say that it is

    def __init__(self, signum: int, step: int):
        step = integer(0)("step", step)
        if not is_integer(signum) or signum not in [*signal.Signals]:
            raise ValueError(
                "`signum` must be the number of a signal, such as signal.SIGTERM. "
                f"Received: signum={signum!r}"
            )
        signum = int(signum)  # a short one of NumPy could not hold the code
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum = signum
        self.step = step
        self.exit_code = 128 + signum


class StopOnSignal(keras.callbacks.Callback):
    """Ends `fit` at the next step after SIGTERM or Ctrl-C, with a checkpoint.

    In the last step of an epoch, whose number Keras has to know, it waits for the end
    of that epoch: what is measured there is in the checkpoint. A second signal waits
    for nothing. With several workers, a signal to one of them stops all after the same
    step.

    It is a context manager too, and has to be: signals are caught inside the `with`
    block only. One that came too late for `fit` ends the block.

    Args:
        checkpoint: The `AtomicCheckpoint` of the same `fit`, listed before this one.

    Raises:
        ValueError: If `checkpoint` is none; from `fit` if that is outside of the block,
            or `checkpoint` is not listed before this one.
        TrainingStopped: From `fit`, or from the block, when a signal came.

    Example:

    >>> import signal, tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((4, 2)), np.ones((4, 1))
    >>> checkpoint = keras_es.callbacks.AtomicCheckpoint(tempfile.mkdtemp())
    >>> with keras_es.callbacks.StopOnSignal(checkpoint) as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     model.fit(x, y, batch_size=1, verbose=0, callbacks=[checkpoint, stop])
    Traceback (most recent call last):
    keras_es.callbacks.TrainingStopped: stopped by SIGTERM after step 1
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, checkpoint: AtomicCheckpoint):
        super().__init__()
        if not isinstance(checkpoint, AtomicCheckpoint):
            raise ValueError(
                "`checkpoint` must be the AtomicCheckpoint of the same `fit`. "
                f"Received: checkpoint={checkpoint!r}"
            )
        self.checkpoint = checkpoint
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        self._received = None
        for signum in self.SIGNALS:
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}
        # One of several workers does not leave alone: the others know nothing of it.
        if kind is None and self._received is not None and not self._joined:
            self._stop()

    def on_train_begin(self, logs=None):
        if not self._previous:
            raise ValueError(
                "StopOnSignal catches signals inside its `with` block only: write "
                "`with StopOnSignal(checkpoint) as stop:` and call `fit` in it. "
                "Received: a `fit` outside of it"
            )
        checkpoint = self.checkpoint
        if checkpoint.begun is None or checkpoint.model is not self.model:
            raise ValueError(
                "the `checkpoint` of StopOnSignal must be listed before it in the same "
                "`fit`: callbacks=[checkpoint, stop]. Received: one that is missing "
                "there, or comes after it"
            )
        if self._joined:
            self.model.train_function.request_stop(False)

    def on_train_batch_begin(self, batch, logs=None):
        self._first_step = batch
        if self._joined and self._received is not None:
            self.model.train_function.request_stop()

    def on_train_batch_end(self, batch, logs=None):
        if self._stops and not self._is_last_step:
            self.checkpoint.save()
            self._stop_together()

    def on_epoch_end(self, epoch, logs=None):
        if self._stops:
            self._stop_together()  # the checkpoint, listed before this one, is saved

    @property
    def _stops(self):
        """Whether this process has to stop; with several workers, whether all have."""
        if self._joined:
            return self.model.train_function.stop_requested
        return self._received is not None

    @property
    def _is_last_step(self):
        """Whether the step that was taken, or the last of several, ends its epoch."""
        # Not by the number at the end, which in some versions of Keras is the first.
        next_step = self._first_step + self.model.steps_per_execution
        steps = self.params.get("steps")
        return steps is not None and next_step >= steps

    @property
    def _joined(self):
        return isinstance(getattr(self.model, "train_function", None), JoinedStep)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._received is not None:
            self._stop()
        self._received = signum

    def _stop_together(self):
        # No worker leaves before the checkpoint is there.
        workers.tell_workers(self.model.distribute_strategy, [0])
        self._stop()

    def _stop(self):
        signum = self._received or signal.SIGTERM  # another worker's
        raise TrainingStopped(signum, self.checkpoint.saved_step)
