"""A lottery ticket: nested masks, the first values of all weights, their history."""

import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_es import _files as files
from keras_es._arguments import choice, integer
from keras_es._arguments import seed as check_seed
from keras_es.layers import tree
from keras_es.lottery import masking
from keras_es.lottery.data import for_file
from keras_es.lottery.remaking import made, seeds_from

FORMAT = 1
"""Version of the files."""

CONTROLS = ("random", "layerwise_random", "reinitialized")


class Ticket:
    """Masks at every round of pruning, and the values that training begins with.

    Made by `keras_es.lottery.find` or `Ticket.load`. What survives a round had survived
    all rounds before it: masks are nested by the way they are kept.

    Attributes:
        round: The round that the ticket is of: how often it was pruned.
        values: List of arrays, all weights of the model without masks, to begin with.
        survived: Dict from name of a weight to an integer array of its shape: how many
            prunings each entry has outlived.
        history: List of dicts, what was measured at each round.
        settings: Dict, how the ticket was found.

    Example:

    >>> def build():
    ...     layers = [keras.Input((4,)), keras.layers.Dense(3, "softmax")]
    ...     return keras.Sequential(layers)
    >>> ticket = keras_es.lottery.Ticket.dense(build())
    >>> ticket.nonzero, ticket.density
    (12, 1.0)
    """

    def __init__(
        self,
        config: dict[str, Any],
        values: list[np.ndarray],
        survived: dict[str, np.ndarray],
        round: int = 0,
        history: list[dict[str, Any]] | tuple = (),
        settings: dict[str, Any] | None = None,
    ):
        self._config = config
        self.values = [np.asarray(v) for v in values]
        self.survived = {n: np.asarray(s, "int32") for n, s in survived.items()}
        self.round = round
        self.history = list(history)
        self.settings = dict(settings or {})

    @classmethod
    def dense(cls, model: keras.Model, exclude: Any = ()) -> "Ticket":
        """Return the ticket of round 0: a model's values, and nothing pruned.

        Args:
            model: Built plain model.
            exclude: List of layer paths or regular expressions of layers that are never
                pruned (see `keras_es.sparsify`).

        Raises:
            ValueError: If it is no such model, or nothing of it can be pruned.
        """
        shapes = masking.maskable(model, exclude)
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        config["layer_names"] = masking.layer_names(model)
        survived = {name: np.zeros(shape, "int32") for name, shape in shapes.items()}
        ticket = cls(config, masking.plain_values(model), survived)
        try:
            with seeds_from("a look"):
                ticket.plain()
        except Exception as error:  # of layers, of their files, of Keras
            raise ValueError(
                "The model of a ticket must be one that its config makes again, with "
                "all of its weights, as in a file: no Lambda of a lambda, no layer "
                "whose class Keras does not know (`keras.saving."
                "register_keras_serializable`), no vocabulary that is looked up. "
                f"Received: model={model.name!r}: {' '.join(str(error).split())[:300]}"
            ) from error
        return ticket

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Dict from name of a weight to its mask, a boolean array."""
        return {name: s >= self.round for name, s in self.survived.items()}

    @property
    def size(self) -> int:
        """Number of weights that could be pruned; biases are not among them."""
        return sum(s.size for s in self.survived.values())

    @property
    def nonzero(self) -> int:
        """Number of them that are left."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def density(self) -> float:
        """Share of them that is left."""
        return self.nonzero / self.size

    def at(self, round: int) -> "Ticket":
        """Return the ticket of an earlier round, with the same first values.

        Args:
            round: Integer of at least 0, at most the ticket's own.
        """
        wanted = integer(0)("round", round)
        if wanted > self.round:
            raise ValueError(
                f"`round` must be at most {self.round}, how often the ticket was "
                f"pruned. Received: round={round!r}"
            )
        return self._with(round=wanted, history=self.history[: wanted + 1])

    def pruned(self, masks: dict[str, np.ndarray]) -> "Ticket":
        """Return the ticket of the next round.

        Args:
            masks: Dict from name to boolean array of the weight's shape, each within
                the ticket's own and with at least one weight left.

        Raises:
            ValueError: If it is no such dict, or a mask has a weight that the ticket's
                has not.
        """
        survived = {}
        for name, kept in self._checked(masks).items():
            mask = self.masks[name]
            if np.any(kept & ~mask):
                raise ValueError(
                    "Masks of the next round must lie within those of this one. "
                    f"Received: {int((kept & ~mask).sum())} weights of {name!r} that "
                    "were pruned before"
                )
            survived[name] = np.where(kept, self.round + 1, self.survived[name])
            survived[name] = np.where(~kept & mask, self.round, survived[name])
        return self._with(survived=survived, round=self.round + 1)

    def _checked(self, masks):
        """Return masks as arrays, if they are of these weights."""
        shapes = {name: s.shape for name, s in self.survived.items()}
        fits = isinstance(masks, dict) and set(masks) == set(shapes)
        found = {n: np.asarray(masks[n]) for n in shapes} if fits else {}
        if not fits or any(
            found[n].dtype != bool or found[n].shape != s or not found[n].any()
            for n, s in shapes.items()
        ):
            given = {
                n: f"{m.shape} of {m.dtype}, {np.count_nonzero(m)} left"
                for n, m in found.items()
            }
            raise ValueError(
                "`masks` must be a dict from the name of each weight to a boolean "
                f"array of its shape, with at least one weight left: {shapes}. "
                f"Received: {given if fits else masks!r:.300}"
            )
        return found

    def model(self) -> keras.Model:
        """Return the masked model at its first values, not compiled.

        Any Keras optimizer trains it, by gradients of what is left, and so do the
        methods of `keras_es.optimizers`. Those that move masks would move these:
        `Static(optimizer)` does not, nor pure evolution with
        `noise=keras_es.noise.Active()`. (`Adafactor` needs `Static` for another reason:
        alone it divides 0 by 0 where a row and a column have no gradient.)
        """
        return masking.masked_copy(self.plain(), self.masks)

    def plain(self) -> keras.Model:
        """Return the model without masks at the same values, not compiled."""
        model = made(self._config)
        masking.set_values(model, self.values)
        return model

    def control(self, kind: str, seed: int = 0) -> "Ticket":
        """Return a ticket that differs from this one in one respect alone.

        Args:
            kind: "random": as many weights at each round, anywhere.
                "layerwise_random": as many of each weight, in random places.
                "reinitialized": the same places, values drawn anew by the model's
                initializers.
            seed: Integer.

        Raises:
            ValueError: If `kind` is none of them, or the model draws the same values
                of a weight again, for its initializer has a seed.
        """
        kind = choice(*CONTROLS)("kind", kind)
        seed = check_seed("seed", seed)
        settings = {**self.settings, "control": kind, "control_seed": seed}
        if kind == "reinitialized":
            values = self._drawn_anew(seed)
            return self._with(values=values, settings=settings, history=[])
        rng = np.random.default_rng([seed % 2**63, 7])
        if kind == "layerwise_random":
            survived = {
                name: rng.permutation(s.reshape(-1)).reshape(s.shape)
                for name, s in self.survived.items()
            }
        else:
            survived = self._shuffled(rng)
        return self._with(survived=survived, settings=settings, history=[])

    def _shuffled(self, rng):
        """Shuffle over all weights; one that outlived all stays in each."""
        parts = [s.reshape(-1).copy() for s in self.survived.values()]
        starts = np.cumsum([0, *(p.size for p in parts)])
        joined = rng.permutation(np.concatenate(parts))
        # No layer may end up empty: where one would, its best changes places.
        found = [joined[a:b] for a, b in zip(starts, starts[1:])]
        for part in found:
            if part.max() < self.round:
                donor = max(found, key=lambda p: int((p >= self.round).sum()))
                give, take = int(donor.argmax()), int(part.argmax())
                donor[give], part[take] = part[take], donor[give]
        return {
            name: part.reshape(s.shape)
            for (name, s), part in zip(self.survived.items(), found)
        }

    def _drawn_anew(self, seed):
        # Not the seed itself: `set_random_seed` may have had the same before `build`.
        with seeds_from(f"reinitialized {seed}"):
            model = made(self._config)
        values = masking.plain_values(model)
        variables = masking.plain_variables(model)
        kept = {
            id(v)
            for _, layer in tree.walk(model)
            # Adapted to data, or frozen: no initializer made them what they are.
            if hasattr(layer, "finalize_state") or not layer.trainable
            for v in layer.weights
        }
        again = []
        for i, (variable, old) in enumerate(zip(variables, self.values)):
            if id(variable) in kept:
                values[i] = old
            elif variable.trainable and np.array_equal(values[i], old):
                again += [variable.path] * bool(np.ptp(old))  # constants are alike
        if again:
            raise ValueError(
                "The model draws the same values of some weights again: leave `seed` "
                f"out of the initializers of their layers. Received: {again}"
            )
        return values

    def _with(self, **changes):
        known = {
            "values": self.values, "survived": self.survived, "round": self.round,
            "history": self.history, "settings": self.settings,
        }  # fmt: skip
        return Ticket(self._config, **{**known, **changes})

    def save(self, path: str | os.PathLike) -> None:
        """Write the ticket to one file, in full or not at all.

        Args:
            path: Name of the file, such as "ticket.npz".

        Raises:
            ValueError: If it is no path.
            keras_es._files.OutputError: If it cannot be written.
        """
        path = files.expanded("path", path)
        note = {
            "format": FORMAT, "config": self._config, "round": self.round,
            "history": self.history, "settings": self.settings,
            "names": list(self.survived), "values": len(self.values),
        }  # fmt: skip
        arrays = {f"value_{i}": v for i, v in enumerate(self.values)}
        arrays |= {f"survived_{i}": s for i, s in enumerate(self.survived.values())}
        write_arrays(path, note, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Ticket":
        """Read a ticket that `save` wrote.

        Custom classes of its model must be known to Keras, as for `load_model`.

        Raises:
            ValueError: If the file is no ticket, or damaged.
            FileNotFoundError: If there is none.
        """
        path = Path(files.expanded("path", path))
        if not path.exists():
            raise FileNotFoundError(
                f"There is no ticket; `save` writes one. Received: path={str(path)!r}"
            )
        try:
            with np.load(path, allow_pickle=False) as file:
                note = json.loads(str(file["note"]))
                if note["format"] != FORMAT:
                    raise ValueError(f"its format is {note['format']}, not {FORMAT}")
                values = [file[f"value_{i}"] for i in range(note["values"])]
                names = enumerate(note["names"])
                survived = {name: file[f"survived_{i}"] for i, name in names}
            config, number = note["config"], int(note["round"])
            history, settings = note["history"], note["settings"]
        except Exception as error:  # zip, JSON and NumPy have one each
            raise ValueError(
                f"The file is no ticket, or damaged ({str(error)[:100]}). "
                f"Received: path={str(path)!r}"
            ) from error
        return cls(config, values, survived, number, history, settings)

    def __repr__(self):
        return (
            f"Ticket(round={self.round}, {self.nonzero:,} of {self.size:,} weights, "
            f"{self.density:.2%})"
        )


def write_arrays(path, note=None, **arrays):
    """Write arrays to one file, in full or not at all.

    Of types that NumPy's files know: bfloat16 as float32.

    Args:
        path: Name of the file.
        note: None, or a value for JSON that stands beside them.
        **arrays: Arrays.
    """
    arrays = {name: for_file(value) for name, value in arrays.items()}
    if note is not None:
        arrays["note"] = np.array(json.dumps(note))

    def write(partial):
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)

    files.replace_file(path, write)
