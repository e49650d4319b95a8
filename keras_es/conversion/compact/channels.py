"""Channels of a graph: which belong together, which are constant, which are read.

The last axis of a tensor are its channels. Channels that can only go together (the two
sides of a sum, input and output of a depthwise convolution) are one group. A group goes
if nobody needs it, and it is needed, beginning at what is pinned, as

    needed(c) = pinned(c) or any over readers, outputs j:
                    needed(j) and w[c, j] != 0 and not (c is a constant to fold).

The least solution is found, so units that only read each other go as well.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

FOLDS, CARRIES, ZEROS = "folds", "carries", "zeros"
"""What a reader can do about a constant input that goes.

FOLDS: its share goes into the bias. CARRIES: padding puts zeros beside the constant, so
it is none in the outputs, but constant channels differ by a factor only: one of them
takes the weights of all. ZEROS: only a constant 0 can go.
"""

UNKNOWN = "a tensor has no last axis of known size"


class CannotFollow(Exception):
    """Why the channels of a call are left alone."""


def agreed(rows: np.ndarray) -> np.ndarray:
    """Return [n] what all rows [m, n] have in a column, NaN where they differ.

    Example:

    >>> agreed(np.array([[1.0, 2.0], [1.0, 3.0]]))
    array([ 1., nan])
    """
    return np.where((rows == rows[:1]).all(axis=0), rows[0], np.nan)


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of one tensor.

    Attributes:
        groups: int array [channels], members of groups as `Tracker` numbers them.
        constants: float64 array [channels]: the value that a channel has at all
            positions of all examples, NaN if it varies.
    """

    groups: np.ndarray
    constants: np.ndarray

    def __len__(self):
        """Return their number."""
        return len(self.groups)

    def with_constants(self, constants: Any) -> "Channels":
        """Return the same channels with other constants; what is not finite varies."""
        constants = np.array(constants, "float64")
        constants[~np.isfinite(constants)] = np.nan
        return Channels(self.groups, constants)


@dataclasses.dataclass(eq=False)
class Reader:
    """What reads channels by weights, and makes new ones of them.

    Attributes:
        inputs: The channels that it reads.
        edges: bool array [inputs, outputs]: where a weight is not zero.
        gain: Function from an index array of inputs [n] to float64 [n, outputs]: what a
            constant 1 of each adds to each output.
        mode: FOLDS, CARRIES or ZEROS.
        outputs: The channels that it makes, once a `Tracker` knows it.
    """

    inputs: Channels
    edges: np.ndarray
    gain: Callable[[np.ndarray], np.ndarray]
    mode: str
    outputs: Channels = dataclasses.field(init=False)

    @property
    def free(self) -> np.ndarray:
        """Which inputs it can do without, though it has weights for them."""
        constants = self.inputs.constants
        return constants == 0.0 if self.mode == ZEROS else ~np.isnan(constants)

    @property
    def carried(self) -> np.ndarray:
        """Which inputs it can do without if another one takes their weights."""
        constants = self.inputs.constants
        carried = ~np.isnan(constants) & (constants != 0.0)
        return carried & (self.mode == CARRIES)

    @property
    def padded(self) -> np.ndarray:
        """Which inputs are constant, read, and vary at the borders."""
        constants = self.inputs.constants
        constant = ~np.isnan(constants) & (constants != 0.0)
        return constant & (self.mode != FOLDS) & self.edges.any(axis=1)

    def constant_outputs(self) -> np.ndarray:
        """Return float64 [outputs]: the sum over constant inputs, NaN if it varies."""
        constants = self.inputs.constants
        stays = ~np.isnan(constants)
        if self.mode != FOLDS:
            stays = constants == 0.0
        rows = np.flatnonzero(stays & (constants != 0.0))
        sums = constants[rows] @ self.gain(rows)
        return np.where(self.edges[~stays].any(axis=0), np.nan, sums)


class Tracker:
    """Groups of channels, and who reads them."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._pinned: list[np.ndarray] = []
        self.made: list[Channels] = []
        self.readers: list[Reader] = []

    def make(self, constants: Any) -> Channels:
        """Return new channels, each a group of its own."""
        first = len(self._parents)
        groups = np.arange(first, first + len(constants))
        self._parents.extend(groups.tolist())
        made = Channels(groups, groups).with_constants(constants)
        self.made.append(made)
        return made

    def make_pinned(self, count: int) -> Channels:
        """Return new channels that vary and stay."""
        made = self.make(np.full(count, np.nan))
        self.pin(made)
        return made

    def pin(self, channels: Channels | None) -> None:
        """Note that channels stay, whoever reads them; None has none."""
        if channels is not None:
            self._pinned.append(channels.groups)

    def unite(self, first: Channels, second: Channels) -> None:
        """Note that channels of two tensors only go together."""
        for a, b in zip(first.groups.tolist(), second.groups.tolist(), strict=True):
            self._parents[self._root(a)] = self._root(b)

    def read(self, reader: Reader, outputs: Channels) -> Channels:
        """Note what reads channels, and return the outputs that it makes."""
        reader.outputs = outputs
        self.readers.append(reader)
        return outputs

    def _root(self, member: int) -> int:
        while self._parents[member] != member:
            self._parents[member] = self._parents[self._parents[member]]
            member = self._parents[member]
        return member

    def solve(self) -> "Solution":
        """Return what stays: the least that fulfils the equation of this module."""
        members = range(len(self._parents))
        roots = np.array([self._root(m) for m in members], dtype=int)
        needed = np.zeros(len(roots), bool)
        for groups in self._pinned:
            needed[roots[groups]] = True
        solution = Solution(roots, needed)
        while True:
            self._spread(solution)
            if not (self._carry(solution) or self._keep_one(solution)):
                return solution

    def _spread(self, solution: "Solution") -> None:
        """Need what something needed reads, until nothing changes."""
        before = -1
        while before != solution.needed.sum():
            before = solution.needed.sum()
            for reader in reversed(self.readers):
                read = solution.reads(reader)
                solution.need(reader.inputs.groups[read & ~reader.free])

    def _carry(self, solution: "Solution") -> bool:
        """Need one of the constant channels that a reader has to merge into one."""
        for reader in self.readers:
            read = solution.reads(reader)
            stays = solution.stays(reader.inputs)
            if (read & reader.carried).any() and not (stays & reader.carried).any():
                first = np.argmax(read & reader.carried)
                solution.need(reader.inputs.groups[first])
                return True
        return False

    def _keep_one(self, solution: "Solution") -> bool:
        """Need one channel of each tensor, for Keras has no layers without units."""
        for made in self.made:
            if len(made) and not solution.stays(made).any():
                # A constant one needs no inputs.
                solution.need(made.groups[np.argmin(np.isnan(made.constants))])
                return True
        return False


class Solution:
    """Which channels stay."""

    def __init__(self, roots: np.ndarray, needed: np.ndarray) -> None:
        self.roots, self.needed = roots, needed

    def need(self, groups: Any) -> None:
        """Let groups stay."""
        self.needed[self.roots[groups]] = True

    def stays(self, channels: Channels) -> np.ndarray:
        """Return bool [channels]."""
        return self.needed[self.roots[channels.groups]]

    def kept(self, channels: Channels) -> np.ndarray:
        """Return the indices of those that stay."""
        return np.flatnonzero(self.stays(channels))

    def reads(self, reader: Reader) -> Any:
        """Return bool [inputs]: which ones have a weight for an output that stays."""
        return reader.edges[:, self.stays(reader.outputs)].any(axis=1)

    def offset(self, reader: Reader) -> np.ndarray:
        """Return float64 [outputs that stay]: what the reader's bias takes over."""
        constants = reader.inputs.constants
        gone = ~self.stays(reader.inputs) & ~np.isnan(constants) & (constants != 0.0)
        rows = np.flatnonzero(gone & (reader.mode == FOLDS))
        return (constants[rows] @ reader.gain(rows))[self.kept(reader.outputs)]

    def shares(self, reader: Reader) -> tuple[int, np.ndarray, np.ndarray]:
        """Return what one constant input carries of others that go.

        Returns:
            (index of the one that carries, indices of the others [n], the factors of
            their weights [n]); n is 0 if there are none.
        """
        stays, constants = self.stays(reader.inputs), reader.inputs.constants
        gone = np.flatnonzero(reader.carried & ~stays)
        carriers = np.flatnonzero(reader.carried & stays)
        if not len(carriers):
            return 0, gone[:0], constants[gone[:0]]
        # The largest: factors at most 1 lose no digits.
        carrier = int(carriers[np.argmax(np.abs(constants[carriers]))])
        return carrier, gone, constants[gone] / constants[carrier]
