"""Iterative pruning: train, score, prune, rewind, and again."""

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_es import _arguments as kinds
from keras_es import _files as files
from keras_es.lottery import checks, masking, methods, scores, training
from keras_es.lottery.data import qualified, stream
from keras_es.lottery.ticket import Ticket, write_arrays
from keras_es.runs.errors import RunError

_share = kinds.number(lambda x: 0 < x < 1, "a number between 0 and 1")


def find(
    build: Callable[[], keras.Model],
    strategy: Any,
    data: Any,
    rounds: int = 20,
    keep: float = 0.8,
    score: Any = "snr",
    rewind: int | str = 0,
    *,
    steps: int,
    batch_size: int = 128,
    loss: Any = "sparse_categorical_crossentropy",
    metrics: Any = ("accuracy",),
    validation_data: Any = None,
    layerwise: bool = False,
    exclude: Any = (),
    seed: int = 0,
    folder: str | os.PathLike | None = None,
    checkpoint_every: int | None = None,
    on_round: Callable | None = None,
    verbose: int = 1,
    compile_arguments: dict[str, Any] | None = None,
    **fit_arguments: Any,
) -> Ticket:
    r"""Find a sparse network that trains from its first values, by iterative pruning.

    In each round the masked model is trained from its first values by a fresh copy of
    the strategy; then of the weights that are left the share `keep` with the largest
    score stays, and the others are set to 0 for good. After r rounds there are

        k_r = round(N keep**r)

    of N weights. Only those are searched: noise, the state of the strategy and its
    updates are of k_r coordinates (the layers multiply whole kernels as before).
    Biases, and whatever else is no kernel, are trained and never pruned. After every
    fit it is checked that the masks are those of the ticket, to the weight.

    Args:
        build: Function () -> built plain model. Its weights are the first values.
        strategy: Strategy of pure evolution, such as `SNES(None)`, or a Keras optimizer
            or its name, which trains by gradients. Each round has a copy without state,
            whose seed is a function of (its seed, round).
        data: Tuple (x, y) of arrays; an `ImageDataset`; or a function (seed,
            first_step) -> endless `tf.data.Dataset` of batches from that step on.
        rounds: How often to prune, at least 1. There are `rounds` + 1 fits, the last of
            them of the ticket that is returned.
        keep: Share of the weights left that stays in a round, between 0 and 1.
        score: By which the largest stay. "snr": |mean| / std of the search
            distribution, of `SNES`, `PGPE` and `SepCMAES`. "magnitude": |w|. "final":
            |w| after the first fit, for all rounds at once. "snip": |w dL/dw| of the
            masked model at its first values. "random": uniform numbers. Or a function
            of the trained model that returns {name: array of scores}. For tickets that
            share the numbers or the places of another, see `Ticket.control`.
        rewind: Integer k: the values that rounds begin with are those of step
            (generation) k of the first fit, and the steps up to k are not taken again;
            0 for the first values. "learning_rate": weights go on from where they are,
            and only the optimizer, with its learning rate, begins again; the values of
            the ticket are then those after its last fit.
        steps: Steps (generations) of a fit, more than `rewind`.
        batch_size: Examples of a step.
        loss: See `keras.Model.compile`.
        metrics: See `keras.Model.compile`.
        validation_data: None, a tuple (x, y) or a `tf.data.Dataset`: evaluated at the
            end of each fit, for the history.
        layerwise: Prune the same share of each weight, not one percentile of all.
        exclude: List of layer paths or regular expressions of layers that are never
            pruned; frozen layers are none either.
        seed: Integer in [0, 2**20) of the order of the data and of random scores.
        folder: None, or where to keep the ticket and checkpoints. A run that was
            stopped, in the middle of a round too, goes on from there to the bit when
            `find` is called again; SIGTERM and Ctrl-C leave a checkpoint. After it has
            finished, more `rounds` go on.
        checkpoint_every: Steps from one checkpoint to the next in a round, None for one
            at its end and one wherever it is stopped by a signal. Means of the history,
            such as `loss`, are those from the last checkpoint of a fit on.
        on_round: None, or a function (model, ticket) called with the trained model of
            each round and its ticket; a round that is resumed at its end may call it
            again.
        verbose: 1 for a progress bar over rounds, 0 for none.
        compile_arguments: Other arguments of `compile`, such as `steps_per_execution`,
            of which `steps`, `rewind` and `checkpoint_every` must be multiples.
        **fit_arguments: Other arguments of `fit`, such as `callbacks`, to which each
            fit is one epoch (two with `rewind`, or more with `checkpoint_every`).

    Returns:
        The `Ticket` of the last round; its `at(r)` is that of round r.

    Raises:
        ValueError: If an argument is out of range or does not go with another.
        keras_es.runs.errors.RunError: If `folder` is of another run, a callback stopped
            a fit, or one ended with a loss that is not finite.
        keras_es.callbacks.TrainingStopped: If a signal came.
        RuntimeError: If something moved the masks in training.

    Example:

    >>> def build():
    ...     layers = [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
    ...     return keras.Sequential(layers)
    >>> data = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])
    >>> ticket = keras_es.lottery.find(
    ...     build, "sgd", data, rounds=1, keep=0.5, score="magnitude", steps=1,
    ...     batch_size=4, verbose=0,
    ... )
    >>> ticket.nonzero
    6

    References:
        Lange, Sprekeler 2023, Lottery tickets in evolutionary optimization,
        arXiv 2306.00045; Frankle, Carbin 2019, The lottery ticket hypothesis,
        arXiv 1803.03635; Frankle et al. 2020, Linear mode connectivity, arXiv
        1912.05671 (rewinding); Renda et al. 2020, arXiv 2003.02389 (learning rates).
    """
    run = _Run(
        strategy, rounds, keep, score, rewind, steps, layerwise, exclude, seed, folder,
        on_round, verbose,
    )  # fmt: skip
    run.fit = training.Fit.checked(
        data, steps, batch_size, loss, metrics, validation_data, compile_arguments,
        checkpoint_every, fit_arguments,
    )  # fmt: skip
    checks.builds(build)
    run.check_together()
    return run.all(build)


class _Run:
    """The rounds of a run, with its arguments checked."""

    fit: training.Fit

    def __init__(
        self, strategy, rounds, keep, score, rewind, steps, layerwise, exclude, seed,
        folder, on_round, verbose,
    ):  # fmt: skip
        self.method = methods.checked(strategy)
        self.rounds = kinds.integer(1)("rounds", rounds)
        self.keep, self.steps = _share("keep", keep), kinds.integer(1)("steps", steps)
        self.score, self.rewind = score, checks.rewinding(rewind, self.steps)
        self.layerwise = kinds.boolean("layerwise", layerwise)
        self.exclude = checks.names(exclude)
        self.seed = checks.below("seed", seed, 20)
        self.folder = None if folder is None else files.expanded("folder", folder)
        self.on_round = on_round
        if on_round is not None and not callable(on_round):
            raise ValueError(
                "`on_round` must be None or a function (model, ticket). "
                f"Received: on_round={on_round!r}"
            )
        self.verbose = checks.progress(verbose)
        checks.check_score(score, self.method)

    def check_together(self):
        """Refuse arguments that do not go with each other."""
        self.fit.check_folder(self.folder)
        checks.executions(self.fit.compile_arguments, rewind=self.rewind)
        if self.score == "snip" and self.fit.arguments.get("class_weight"):
            raise ValueError(
                'score="snip" is of the loss without class weights: leave them out, or '
                "weight the examples in `data`. "
                f"Received: class_weight={self.fit.arguments['class_weight']!r}"
            )

    @property
    def settings(self):
        """What tells this run from others."""
        name = qualified(self.score) if callable(self.score) else self.score
        known = {
            "strategy": methods.config_of(self.method), "keep": self.keep,
            "score": name, "rewind": self.rewind, "layerwise": self.layerwise,
            "exclude": sorted(self.exclude), "seed": self.seed, **self.fit.identity,
        }  # fmt: skip
        if name == "final":
            known["rounds"] = self.rounds
        return json.loads(json.dumps(known))  # as a file gives it back

    def all(self, build):
        """Go through all rounds that are not done yet."""
        ticket = self._begin(build)
        self._check_known(ticket)
        bar = keras.utils.Progbar(
            self.rounds + 1, verbose=self.verbose, unit_name="round",
            stateful_metrics=["weights", "accuracy", "val_accuracy", "loss"],
        )  # fmt: skip
        for row in ticket.history:
            self._show(bar, row)
        while len(ticket.history) <= self.rounds:
            ticket = self._round(ticket)
            self._show(bar, ticket.history[-1])
        return ticket.at(self.rounds)

    def _check_known(self, ticket):
        """Refuse to give back rounds that are not what was asked for.

        Raises:
            RunError: If the folder has other values, or no measurements of the kind.
        """
        rows = ticket.history
        if self.rewind == "learning_rate" and len(rows) > self.rounds + 1:
            raise RunError(
                f"the folder {self.folder} has {len(rows) - 1} rounds, and with "
                'rewind="learning_rate" its values are those after the last of them. '
                "Choose another `folder`, or at least as many `rounds`. Received: "
                f"rounds={self.rounds}"
            )
        measured = any(name.startswith("val_") for row in rows for name in row)
        if rows and self.fit.validation_data is not None and not measured:
            raise RunError(
                f"the rounds in {self.folder} were measured without "
                "`validation_data`. Leave it out, or choose another `folder`. "
                f"Received: validation_data of type "
                f"{type(self.fit.validation_data).__name__}"
            )

    def _begin(self, build):
        """Return the ticket that was kept, or that of round 0."""
        path = self._path("ticket.npz")
        if path is not None and path.exists():
            ticket = Ticket.load(path)
            training.same_run(ticket.settings, self.settings, self.folder)
            training.same_model(ticket, checks.built(build()), self.folder)
            return ticket
        ticket = Ticket.dense(checks.built(build()), self.exclude)
        ticket.settings = self.settings
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            ticket.save(path)
        return ticket

    def _path(self, name):
        return None if self.folder is None else Path(self.folder) / name

    def _round(self, ticket):
        """Train the ticket, and return that of the next round."""
        r, folder = ticket.round, self._path(f"round-{ticket.round:02d}")
        first_step, marks = 0, []
        first: dict[str, Any] = {}
        if isinstance(self.rewind, int) and self.rewind:
            first_step = self.rewind if r else 0
            marks = [] if r else [(self.rewind, functools.partial(self._hold, first))]
        model, logs = self.fit.run(
            ticket.model, self.method, r, (self.seed * 1009 + r) % 2**31, first_step,
            marks, folder, {"round": r, **self.settings},
        )  # fmt: skip
        masking.check(model, ticket.masks)
        row = {
            "round": r, "weights": ticket.nonzero, "density": ticket.density,
            "nonzero": {n: int(m.sum()) for n, m in ticket.masks.items()},
            **logs, **self.fit.evaluate(model),
        }  # fmt: skip
        if not np.all(np.isfinite(row.get("loss", 0.0))):
            raise RunError(
                f"the fit of round {r} ended with a loss of {row['loss']}, by which no "
                "weight is better than another. Look for what is not finite in `data`, "
                "or lower the learning rate"
            )
        ticket = ticket._with(history=[*ticket.history, row])
        if self.on_round is not None:
            self.on_round(model, ticket)
        if self.rewind == "learning_rate":
            ticket = ticket._with(values=masking.plain_values(model))
        elif marks:
            ticket = ticket._with(values=first.get("values") or self._held())
        ticket = self._pruned(ticket, model)
        if folder is not None:
            ticket.save(self._path("ticket.npz"))
            shutil.rmtree(folder, ignore_errors=True)
        return ticket

    def _hold(self, first, model):
        """Keep the values that later rounds begin with."""
        first["values"] = masking.plain_values(model)
        path = self._path("first.npz")
        if path is not None:
            values = {f"value_{i}": v for i, v in enumerate(first["values"])}
            write_arrays(path, **values)

    def _held(self):
        with np.load(self._path("first.npz"), allow_pickle=False) as file:
            return [file[f"value_{i}"] for i in range(len(file.files))]

    def _pruned(self, ticket, model):
        """Return the ticket of the next round by the scores of a trained model."""
        if self.score == "final":
            if ticket.round:  # All was decided in the first round.
                last = min(ticket.round + 1, self.rounds)
                return ticket._with(round=last)
            found = scores.magnitude(model)
            for _ in range(self.rounds):
                ticket = self._prune(ticket, found)
            return ticket._with(round=1)
        return self._prune(ticket, self._scores(ticket, model))

    def _prune(self, ticket, found):
        count = round(ticket.size * self.keep ** (ticket.round + 1))
        kept = scores.survivors(found, ticket.masks, count, self.layerwise)
        return ticket.pruned(kept)

    def _scores(self, ticket, model):
        shapes = {name: mask.shape for name, mask in ticket.masks.items()}
        if callable(self.score):
            return checks.checked_scores(self.score(model), shapes)
        if self.score == "random":
            return scores.random(shapes, self.seed, ticket.round)
        if self.score == "snip":
            begun = ticket.model()
            self.fit.compile(begun, "sgd")
            batches = stream(
                self.fit.data, self.fit.batch_size, self.seed * 1009 + ticket.round, 0
            )
            return scores.snip(begun, batches)
        return {"snr": scores.snr, "magnitude": scores.magnitude}[self.score](model)

    def _show(self, bar, row):
        names = ("weights", "loss", "accuracy", "val_accuracy")
        bar.update(row["round"] + 1, [(n, row[n]) for n in names if n in row])
