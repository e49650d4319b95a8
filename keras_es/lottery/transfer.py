"""A ticket that was found by one method, trained by another or on other data."""

import os
from typing import Any, NamedTuple

import keras

from keras_es import _files as files
from keras_es.lottery import checks, masking, methods, training
from keras_es.lottery.data import digest
from keras_es.lottery.ticket import Ticket


class Transferred(NamedTuple):
    """What `transfer` returns.

    Attributes:
        model: The trained masked model.
        logs: Dict, what was measured in training and on the validation data.
    """

    model: keras.Model
    logs: dict[str, float]


def transfer(
    ticket: Ticket,
    strategy: Any,
    data: Any,
    *,
    steps: int,
    batch_size: int = 128,
    loss: Any = "sparse_categorical_crossentropy",
    metrics: Any = ("accuracy",),
    validation_data: Any = None,
    seed: int = 0,
    folder: str | os.PathLike | None = None,
    checkpoint_every: int | None = None,
    compile_arguments: dict[str, Any] | None = None,
    **fit_arguments: Any,
) -> Transferred:
    """Train a ticket from its first values, by any method and on any data that fit it.

    The masks stay, and that is checked at the end. Controls (`Ticket.control`) are
    trained the same way, for comparison.

    Args:
        ticket: A `Ticket`; `ticket.at(r)` for an earlier round.
        strategy: Strategy of pure evolution, or a Keras optimizer or its name.
        data: See `find`.
        steps: Steps (generations) to train.
        batch_size: Examples of a step.
        loss: See `keras.Model.compile`.
        metrics: See `keras.Model.compile`.
        validation_data: See `find`.
        seed: Integer in [0, 2**31) of the order of the data.
        folder: None, or where to keep checkpoints, to go on from (see `find`).
        checkpoint_every: See `find`.
        compile_arguments: See `find`.
        **fit_arguments: Other arguments of `fit`, such as `callbacks`.

    Returns:
        A `Transferred`: (model, logs).

    Raises:
        ValueError: If an argument is out of range or does not go with another.

    Example:

    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
    >>> ticket = keras_es.lottery.Ticket.dense(keras.Sequential(layers))
    >>> data = np.eye(4, dtype="float32"), np.array([0, 1, 2, 0])
    >>> model, logs = keras_es.lottery.transfer(
    ...     ticket, "adam", data, steps=2, batch_size=4
    ... )
    >>> sorted(logs)[:2]
    ['accuracy', 'loss']
    """
    if not isinstance(ticket, Ticket):
        raise ValueError(
            f"`ticket` must be a keras_es.lottery.Ticket. Received: ticket={ticket!r}"
        )
    method = methods.checked(strategy)
    fit = training.Fit.checked(
        data, steps, batch_size, loss, metrics, validation_data, compile_arguments,
        checkpoint_every, fit_arguments,
    )  # fmt: skip
    seed = checks.below("seed", seed, 31)
    run = {
        "strategy": methods.config_of(method), "seed": seed, "round": ticket.round,
        "ticket": ticket.settings, **fit.identity,
        "weights": digest([*ticket.values, *ticket.masks.values()]),
    }  # fmt: skip
    folder = None if folder is None else files.expanded("folder", folder)
    fit.check_folder(folder)
    model, logs = fit.run(ticket.model, method, 0, seed, folder=folder, run=run)
    masking.check(model, ticket.masks)
    return Transferred(model, {**logs, **fit.evaluate(model)})
