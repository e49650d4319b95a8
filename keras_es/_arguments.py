"""Arguments of constructors: declared once, and from that checked, stored, serialized.

A class says what it takes by attributes of the kind `Argument`; what it inherits and
cannot use, by `Refused` with the reason. Its signature, the checks and `get_config`
follow from them. A *kind* is a function (name, value) -> value that raises a
`ValueError` or gives the value as it is kept.
"""

import inspect
import math
import numbers

import keras
import numpy as np

_REQUIRED = inspect.Parameter.empty

_TINY, _HUGE = (float(x) for x in (np.finfo("float32").tiny, np.finfo("float32").max))


class Argument:
    """One argument of a constructor.

    Args:
        kind: Function (name, value) -> value as it is kept; raises if it will not do.
        default: Value if it is left out; without one the argument is required.
        keyword: Whether it can be given by its name alone.
        serialize: Function from the value to what stands in the config.
    """

    def __init__(self, kind, default=_REQUIRED, *, keyword=False, serialize=None):
        self.kind, self.default, self.keyword = kind, default, keyword
        self.serialize = serialize or serialized

    def parameter(self, name):
        """Return what stands in the signature."""
        kinds = inspect.Parameter
        where = kinds.KEYWORD_ONLY if self.keyword else kinds.POSITIONAL_OR_KEYWORD
        return kinds(name, where, default=self.default)


class Refused:
    """An argument of a base class that a class cannot use.

    Args:
        why: What the class has instead; ends the sentence "... has no `argument`:".
        value: What objects of the class have in its place.
    """

    def __init__(self, why, value=None):
        self.why, self.value = why, value

    def __get__(self, instance, owner=None):
        return self if instance is None else self.value


def arguments_of(cls):
    """Return the arguments of a class, a dict from name to `Argument`, bases first."""
    found = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Argument):
                found[name] = value
            else:  # Refused, or fixed by a plain attribute of the class.
                found.pop(name, None)
    return found


def signature(cls):
    """Return the signature that a class's constructor has."""
    parameters = [a.parameter(name) for name, a in arguments_of(cls).items()]
    # Those without a default, then those with one, then what goes by name alone.
    parameters.sort(key=lambda p: (p.kind, p.default is not _REQUIRED))
    return inspect.Signature(parameters)


def bind(cls, args, kwargs, refuse=None):
    """Return all arguments of a class, checked, a dict from name to value.

    Args:
        cls: The class.
        args: Positional arguments.
        kwargs: The others.
        refuse: None, or a function (name, value) that is called first for what the
            class does not take, for a better message.

    Raises:
        ValueError: For an argument that is not known, or a value that will not do.
        TypeError: If there are too few or too many.
    """
    declared, plan = arguments_of(cls), signature(cls)
    for name, value in kwargs.items():
        if name in declared:
            continue
        refused = inspect.getattr_static(cls, name, None)
        if isinstance(refused, Refused):
            raise ValueError(
                f"{cls.__name__} has no `{name}`: {refused.why}. "
                f"Received: {name}={value!r}"
            )
        if refuse is not None:
            refuse(name, value)
        raise ValueError(
            f"{cls.__name__} has no argument `{name}`; it has {list(declared)}. "
            f"Received: {name}={value!r}"
        )
    try:
        bound = plan.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}{plan}: {error}") from None
    given = bound.arguments
    values = {}
    for name, argument in declared.items():
        values[name] = given.get(name, argument.default)
        if values[name] is not None or argument.default is not None:
            values[name] = argument.kind(name, values[name])
    return values


def config_of(instance):
    """Return the config of an object: its declared arguments as they are now."""
    return {
        name: argument.serialize(getattr(instance, name))
        for name, argument in arguments_of(type(instance)).items()
    }


def serialized(value):
    """Return numbers and names as they are, objects as their Keras config."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return keras.saving.serialize_keras_object(value)


class Option:
    """Base of options: values that cannot change, and are equal if what they say is.

    A subclass declares its `Argument`s, and is registered with Keras.
    """

    __signature__: inspect.Signature

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.__signature__ = signature(cls)
        keras.saving.register_keras_serializable(package="keras_es")(cls)

    def __init__(self, *args, **kwargs):
        vars(self).update(bind(type(self), args, kwargs))
        self.check()

    def check(self):
        """Raise for arguments that do not go together."""

    def get_config(self):
        """Return the arguments of the constructor."""
        return config_of(self)

    @classmethod
    def from_config(cls, config):
        """Make the option from its config."""
        return cls(**config)

    def __setattr__(self, name, value):
        raise AttributeError(
            f"{type(self).__name__} cannot be changed; make another one. "
            f"Received: {name}={value!r}"
        )

    def __eq__(self, other):
        same = type(self) is type(other)
        return same and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(type(self))

    def __repr__(self):
        values = ", ".join(
            f"{k}={getattr(self, k)!r}" for k in arguments_of(type(self))
        )
        return f"{type(self).__name__}({values})"


# Kinds.


def optional(kind):
    """Return a kind that takes None besides."""
    return lambda name, value: None if value is None else kind(name, value)


def is_integer(value):
    """Tell whether a value is an integer of Python or NumPy, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def integer(minimum=None, meaning=""):
    """Return the kind of integers, NumPy's too, that int64 holds, from `minimum` on.

    Args:
        minimum: Smallest value that will do; None for any.
        meaning: What the number is, for the message.
    """

    def check(name, value):
        bound = "" if minimum is None else f" of at least {minimum}"
        fits = is_integer(value) and (minimum is None or value >= minimum)
        if fits and abs(value) >= 2**63:
            fits, bound = False, f"{bound}, less than 2**63 in size"
        if not fits:
            raise ValueError(
                f"`{name}` must be an integer{bound}{meaning and ', ' + meaning}. "
                f"Received: {name}={value!r}"
            )
        return int(value)

    return check


def seed(name, value):
    """Return the integer seed of a random generator."""
    if not is_integer(value) or abs(value) >= 2**62:
        raise ValueError(
            f"`{name}` must be an integer, less than 2**62 in size. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def is_number(value):
    """Tell whether a value is a finite real number, of Python or NumPy."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False


def number(accepts, wanted):
    """Return a kind of finite numbers, which float32 can hold.

    Args:
        accepts: Function of a float that tells whether it will do.
        wanted: What they are, for the message: "a number above 0".
    """

    def check(name, value):
        if not is_number(value) or not accepts(float(value)):
            raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
        # As a float: a NumPy scalar would cast the limits to its own, shorter, type.
        if value and not _TINY <= abs(float(value)) <= _HUGE:  # 0 or inf in float32.
            raise ValueError(
                f"`{name}` must be {wanted}, which float32 can hold. "
                f"Received: {name}={value!r}"
            )
        return float(value)

    return check


positive = number(lambda x: x > 0, "a number above 0")
decay = number(lambda x: 0 <= x < 1, "a number in [0, 1)")


def scheduled(kind):
    """Return a kind that takes a `LearningRateSchedule`, or its config, besides."""
    base = keras.optimizers.schedules.LearningRateSchedule

    def check(name, value):
        if isinstance(value, dict):
            value = deserialized(name, value, base, "a LearningRateSchedule")
        return value if isinstance(value, base) else kind(name, value)

    return check


schedule = scheduled(
    number(lambda x: x >= 0, "a number of at least 0 or a LearningRateSchedule")
)
share = scheduled(
    number(lambda x: 0 <= x <= 1, "a number in [0, 1] or a LearningRateSchedule")
)


def boolean(name, value):
    """Return True or False; nothing else counts as one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def text(name, value):
    """Return a string."""
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be a string. Received: {name}={value!r}")
    return value


def choice(*names):
    """Return the kind of these names."""

    def check(name, value):
        if not isinstance(value, str) or value not in names:
            raise ValueError(
                f"`{name}` must be one of {names}. Received: {name}={value!r}"
            )
        return value

    return check


def instance(classes, wanted):
    """Return the kind of objects of some classes, or their configs.

    Args:
        classes: Class or tuple of classes.
        wanted: What they are, for the message.
    """

    def check(name, value):
        if isinstance(value, dict):
            value = deserialized(name, value, classes, wanted)
        if not isinstance(value, classes):
            raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
        return value

    return check


def deserialized(name, config, classes, wanted):
    """Return the object of a Keras config.

    Raises:
        ValueError: If there is none, or it is of another class.
    """
    try:
        found = keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be {wanted}; from its config none could be made ({error}). "
            f"Received: {name}={config!r}"
        ) from error
    if not isinstance(found, classes):
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={config!r}")
    return found
