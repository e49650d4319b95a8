"""The methods by name: `register` puts a class in, `get` finds it."""

import dataclasses
import difflib

import keras

OPTIMIZERS: dict[str, type] = {}
"""Name -> class of all methods that move masks next to gradients for the weights."""

PURE: dict[str, type] = {}
"""Name -> class of all that evolve the weights too, with `inner_optimizer=None`."""


TUNED: dict[str, "Tuned | None"] = {}
"""Name -> what a search tunes of a method besides the learning rate of the weights."""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The one number of a method that is worth a search, and what to try.

    Attributes:
        name: Its name in tables.
        values: Three values, the middle one what is taken without a search.
        argument: Argument of the method in which it is, with the settings of
            `for_run`; None if it is the argument of that name itself.
        field: Its name in the config of that argument: of a schedule, or of the rate
            of an optimizer. None for `name`.
        of_run: Whether it is a share of the steps of a run, and the field counts steps.
        rates: Learning rates of the weights to try with it; None for the usual ones.
    """

    name: str
    values: tuple
    argument: str | None = None
    field: str | None = None
    of_run: bool = False
    rates: tuple | None = None


def register(name, tuned=None):
    """Return a decorator that makes a method known by a snake-case name.

    It is then found by `keras_es.optimizers.get`, by train.py, by the conformance
    tests and by the benchmarks, and Keras saves and loads it.

    Args:
        name: Name of the method.
        tuned: A `Tuned`, or None if there is nothing to tune but the learning rate.

    Raises:
        ValueError: If the name is none, there is another class of that name, or what is
            registered is no class of a method.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(
            '`name` must be a snake-case name, such as "hill_climb". '
            f"Received: name={name!r}"
        )

    def put(cls):
        if not (isinstance(cls, type) and hasattr(cls, "trains_by_gradients")):
            raise ValueError(
                "`register` must be put above a subclass of keras_es.optimizers."
                f"MaskOptimizer. Received: {cls!r}"
            )
        known = OPTIMIZERS.get(name) or PURE.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"`name` must be one that no method has yet. Received: name={name!r}, "
                f"which is that of {known.__name__}"
            )
        TUNED[name] = tuned
        if cls.trains_by_gradients:
            OPTIMIZERS[name] = cls
        if cls.evolves_weights:
            PURE[name] = cls
        return keras.saving.register_keras_serializable(package="keras_es")(cls)

    return put


def get(name):
    """Return the class of a method by its snake-case name.

    Raises:
        ValueError: If there is none of that name; near matches are named.

    Example:

    >>> get("snes").__name__
    'SNES'
    """
    known = {**OPTIMIZERS, **PURE}
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"The mask optimizer must be one of {sorted(known)}.{hint} Received: {name!r}"
    )
