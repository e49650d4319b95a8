"""One fit of a ticket: from its first values to its last step, resumable to the bit."""

import contextlib
import dataclasses
import threading
import time
from typing import Any

import keras

from keras_es import _arguments as kinds
from keras_es import _files as files
from keras_es.conversion.models import check_model
from keras_es.lottery import checks, masking, methods
from keras_es.lottery.data import fingerprint, qualified, stream
from keras_es.lottery.remaking import anonymous, seeds_from
from keras_es.runs.checkpoints import AtomicCheckpoint, plain_logs
from keras_es.runs.errors import RunError
from keras_es.runs.signals import StopOnSignal

RESERVED = (
    "x", "y", "batch_size", "epochs", "initial_epoch", "steps_per_epoch", "shuffle",
    "validation_data", "validation_split", "validation_steps", "validation_batch_size",
    "validation_freq", "sample_weight", "verbose",
)  # fmt: skip
"""Arguments of Keras's `fit` that the rounds themselves decide."""


@dataclasses.dataclass
class Fit:
    """How models are trained, the same at each round.

    Attributes:
        data: See `find`.
        steps: Steps of a fit.
        batch_size: Examples of a step.
        loss: See `keras.Model.compile`.
        metrics: See `keras.Model.compile`.
        validation_data: None, or what `keras.Model.evaluate` takes.
        compile_arguments: Other arguments of `compile`.
        checkpoint_every: Steps from one checkpoint to the next, None for one at the
            end of a fit and one wherever it is stopped.
        arguments: Other arguments of `fit`.
    """

    data: Any
    steps: int
    batch_size: int
    loss: Any
    metrics: Any
    validation_data: Any
    compile_arguments: dict
    checkpoint_every: int | None
    arguments: dict

    @classmethod
    def checked(
        cls, data, steps, batch_size, loss, metrics, validation_data,
        compile_arguments, checkpoint_every, arguments,
    ):  # fmt: skip
        """Return a `Fit` of a user's arguments.

        Raises:
            ValueError: If one is out of range or decided elsewhere.
        """
        positive = kinds.integer(1)
        steps, batch_size = positive("steps", steps), positive("batch_size", batch_size)
        every = kinds.optional(positive)("checkpoint_every", checkpoint_every)
        if not isinstance(compile_arguments, dict | None):
            raise ValueError(
                "`compile_arguments` must be None or a dict of arguments of `compile`. "
                f"Received: compile_arguments={compile_arguments!r}"
            )
        given = dict(compile_arguments or {})
        validation_data = checks.validation(validation_data)
        refuse(given, ("optimizer", "loss", "metrics"), "compile")
        refuse(arguments, RESERVED, "fit")
        checks.own(given, keras.Model.compile, "compile")
        checks.own(arguments, keras.Model.fit, "fit")
        checks.class_weight(arguments.get("class_weight"))
        checks.executions(given, steps=steps, checkpoint_every=every)
        return cls(
            data, steps, batch_size, loss, metrics, validation_data, given, every,
            arguments,
        )  # fmt: skip

    def check_folder(self, folder):
        """Refuse what goes with no folder, or what no checkpoint can hold.

        Raises:
            ValueError: If there is such an argument.
            keras_es._files.OutputError: If the folder is a file.
        """
        if folder is None and self.checkpoint_every is not None:
            raise ValueError(
                "`checkpoint_every` needs a `folder` to keep checkpoints in. "
                f"Received: checkpoint_every={self.checkpoint_every}, folder=None"
            )
        if folder is None:
            return
        if folder.exists() and not folder.is_dir():
            raise files.OutputError(f"cannot write {folder}: it is not a folder")
        nameless = [f for f in self.functions if "<lambda>" in qualified(f)]
        if nameless:
            raise ValueError(
                "A loss or metric must be a function with a name where a `folder` is "
                "given: Keras does not load a lambda of a checkpoint. "
                f"Received: {[qualified(f).split()[0] for f in nameless]}"
            )

    @property
    def functions(self):
        """Functions and objects of the user's own that checkpoints name."""
        weighted = self.compile_arguments.get("weighted_metrics")
        parts = [p for p in (self.loss, self.metrics, weighted) if p is not None]
        found = keras.tree.flatten(parts)
        return [f for f in found if callable(f)]

    @property
    def objects(self):
        """The same by the names that Keras has for them."""
        named = [f if isinstance(f, type) or hasattr(f, "__name__") else type(f)
                 for f in self.functions]  # fmt: skip
        return {f.__name__: f for f in named}

    @property
    def identity(self):
        """What tells fits of this kind from others, for JSON."""
        weights = self.arguments.get("class_weight") or {}
        of_losses = self.compile_arguments.get("loss_weights")
        return {
            "steps": self.steps, "batch_size": self.batch_size,
            "data": fingerprint(self.data), "loss": methods.described(self.loss),
            "class_weight": sorted([str(k), float(w)] for k, w in weights.items()),
            "loss_weights": None if of_losses is None else repr(of_losses),
        }  # fmt: skip

    def compile(self, model, optimizer):
        """Compile a model for this kind of fit."""
        metrics = self.metrics  # Keras takes no tuple.
        metrics = list(metrics) if isinstance(metrics, tuple) else metrics
        model.compile(
            optimizer, loss=self.loss, metrics=metrics, **self.compile_arguments
        )

    def run(self, make, method, round_index, seed, first_step=0, marks=(), folder=None,
            run=None):  # fmt: skip
        """Train a model, or go on where a fit in this folder was stopped.

        Args:
            make: Function () -> masked model at its first values.
            method: What `methods.checked` returned.
            round_index: Number of the round.
            seed: Seed of the order of the data.
            first_step: Step that the fit begins with (rewinding).
            marks: List of (step, function of the model) called when so many steps are
                done; a fit that goes on may call it again.
            folder: None, or where its checkpoints are.
            run: Dict for JSON that tells this fit from others.

        Returns:
            (model, logs): the trained model, and the logs of its last part.
        """
        model, checkpoint = None, None
        if folder is not None:
            with keras.saving.custom_object_scope(self.objects):
                model, progress, _ = AtomicCheckpoint.restore(folder, run)
            checkpoint = AtomicCheckpoint(folder, 1, progress, run)
        if model is None:
            with seeds_from(f"fit {seed}"):  # of Dropout: the same after a stop
                model = make()
            self.compile(model, methods.fresh(method, round_index, first_step))
            model.optimizer.build(model.trainable_variables)
        marks = dict(marks)
        ends = {self.steps, *marks}
        if self.checkpoint_every is not None:
            ends |= {*range(first_step, self.steps, self.checkpoint_every)}
        done = first_step + (checkpoint.progress.step if checkpoint else 0)
        if done in marks:
            marks[done](model)
        callbacks: list[Any] = []
        stopper: Any = contextlib.nullcontext()
        if checkpoint is not None:
            callbacks.append(checkpoint)
            # Python tells no other thread of signals.
            if threading.current_thread() is threading.main_thread():
                stopper = StopOnSignal(checkpoint)
                callbacks.append(stopper)
        logs = _last_logs(checkpoint)
        begun = time.monotonic()
        with stopper:
            while done < self.steps:
                end = min(e for e in ends if e > done)
                logs = self._part(model, seed, done, end, callbacks)
                done = end
                if done in marks:
                    marks[done](model)
        seconds = checkpoint.progress.seconds if checkpoint else (
            time.monotonic() - begun
        )  # fmt: skip
        logs = {name: value for name, value in logs.items() if name != "epoch"}
        return model, {**plain_logs(logs), "seconds": round(seconds, 2)}

    def _part(self, model, seed, first, end, callbacks):
        """Train from one step to another."""
        given = {**self.arguments}
        own = keras.tree.flatten(given.pop("callbacks", None) or [])  # one, or a list
        steps = _Steps()
        history = model.fit(
            stream(self.data, self.batch_size, seed, first),
            steps_per_epoch=end - first,
            initial_epoch=0,
            epochs=1,
            shuffle=False,
            verbose=0,
            callbacks=[*own, *callbacks, steps],
            **given,
        )
        if steps.done != end - first:
            why = "the batches of `data` came to an end: let them `repeat()`"
            if model.stop_training:
                why = "a callback set `stop_training`: leave it out"
            raise RunError(
                f"a fit must have {self.steps} steps, for rounds to be compared, and "
                f"{why}. Received: {first + steps.done} steps"
            )
        return {name: values[-1] for name, values in history.history.items()}

    def evaluate(self, model):
        """Return the logs of the validation data, with `val_` before their names."""
        if self.validation_data is None:
            return {}
        data = self.validation_data
        x, y, sample_weight = data, None, None
        arguments = {}
        if isinstance(data, tuple):
            x, y, sample_weight = (*data, None)[:3]
            arguments["batch_size"] = max(self.batch_size, 1024)
        logs = model.evaluate(
            x, y, sample_weight=sample_weight, verbose=0, return_dict=True, **arguments
        )
        return {f"val_{name}": value for name, value in plain_logs(logs).items()}


class _Steps(keras.callbacks.Callback):
    """Counts the steps of a fit, which Keras ends early with a warning at most."""

    done = 0

    def on_train_batch_end(self, batch, logs=None):
        self.done = batch + 1


def _last_logs(checkpoint):
    history = checkpoint.progress.history if checkpoint else []
    return history[-1] if history else {}


def refuse(arguments, names, of):
    """Refuse arguments that are decided elsewhere.

    Raises:
        ValueError: If there are any.
    """
    found = sorted(set(arguments) & set(names))
    if found:
        raise ValueError(
            f"{found} of `{of}` are decided by the rounds and by arguments of their "
            f"own here: leave them out. Received: {found}"
        )


def same_run(known, settings, folder):
    """Refuse to go on with a folder of another run.

    Raises:
        RunError: If settings differ.
    """
    other = {k: v for k, v in settings.items() if known.get(k) != v}
    if other:
        name = next(iter(other))
        raise RunError(
            f"the folder {folder} is of another run: its {name} is "
            f"{str(known.get(name))[:100]}. Choose another `folder` or remove it. "
            f"Received: {name}={str(other[name])[:100]}"
        )


def same_model(ticket, model, folder):
    """Refuse to go on with a folder of another network.

    Raises:
        ValueError: If it is no model.
        RunError: If its layers or the shapes of its weights differ.
    """
    check_model(model)
    if anonymous(keras.saving.serialize_keras_object(model)) != anonymous(
        ticket._config
    ):
        raise RunError(
            f"the folder {folder} is of another network: `build` returns other layers, "
            "or layers with other arguments, than it did. Choose another `folder` or "
            f"remove it. Received: {model.name!r}"
        )
    known = [v.shape for v in ticket.values]
    shapes = [tuple(v.shape) for v in masking.plain_variables(model)]
    if shapes != known:
        raise RunError(
            f"the folder {folder} is of another network, whose weights have the shapes "
            f"{known}. Choose another `folder` or remove it. Received: {shapes}"
        )
