"""The methods by name: `register` puts a class in, `get` finds it."""

import difflib

import keras

OPTIMIZERS: dict[str, type] = {}
"""Name -> class of all methods that move masks next to gradients for the weights."""

PURE: dict[str, type] = {}
"""Name -> class of all that evolve the weights too, with `inner_optimizer=None`."""


def register(name):
    """Return a decorator that makes a method known by a snake-case name.

    It is then found by `keras_es.optimizers.get`, by train.py, by the conformance
    tests and by the benchmarks, and Keras saves and loads it.

    Args:
        name: Name of the method.

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
