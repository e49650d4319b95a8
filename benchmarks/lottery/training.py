"""The cases of the study: tickets, controls, transfers, lines and flatness."""

import json
import math
from pathlib import Path

import numpy as np

from benchmarks.accuracy.results import Results, key
from benchmarks.lottery.suites import (
    SCORES,
    SUITES,
    examples,
    steps_of,
    strategy,
)

FAR = 13
"""The round whose tickets are transferred: 5.5 % of the weights are left."""


class Lines(Results):
    """The rows of a study; what is there already is not done again.

    Args:
        path: The file, made with the first row.
    """

    def __init__(self, path):
        super().__init__(path, ("case", "round"))

    def has(self, case, round_index):
        """Tell whether a round of a case is known."""
        wanted = key({"case": case, "round": round_index}, self.keys)
        return any(key(row, self.keys) == wanted for row in self.rows())

    def add(self, case, round_index, **values):
        """Append a row, unless it is there."""
        if self.has(case, round_index):
            return
        super().add({"case": case, "round": round_index, **values})
        shown = {k: v for k, v in values.items() if k in ("weights", "accuracy")}
        print(json.dumps({**case, "round": round_index, **shown}), flush=True)


class Study:
    """One suite, data set and seed.

    Args:
        name: Name of the suite.
        dataset: Name of the data set.
        seed: Integer.
        flags: Flags of the command line.
    """

    def __init__(self, name, dataset, seed, flags):
        self.name, self.suite = name, SUITES[name]
        self.dataset, self.seed, self.flags = dataset, seed, flags
        self.lines = Lines(Path(flags.output) / "lottery.jsonl")
        self.work = Path(flags.work) / f"{name}-{dataset}-{seed}-{flags.keep:g}"
        self._examples = {}

    def case(self, kind, score, **more):
        """Return what tells a case from others."""
        return {
            "suite": self.name, "dataset": self.dataset, "kind": kind, "score": score,
            "seed": self.seed, "steps": steps_of(self.suite, kind, self.flags),
            "keep": self.flags.keep, **more,
        }  # fmt: skip

    def data(self, dataset=None):
        """Return ((x, y) of training, (x, y) of test) of a data set."""
        dataset = dataset or self.dataset
        if dataset not in self._examples:
            self._examples[dataset] = examples(dataset, self.suite.pooled)
        return self._examples[dataset]

    def arguments(self, kind, dataset=None):
        """Return the arguments of `find` and `transfer`."""
        import keras

        train, test = self.data(dataset)
        steps = steps_of(self.suite, kind, self.flags)
        return {
            "data": train, "validation_data": test, "steps": steps,
            "batch_size": 128 if kind == "gradient" else self.suite.batch_size,
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "seed": self.seed,
            "compile_arguments": {"steps_per_execution": math.gcd(steps, 50)},
        }  # fmt: skip

    def method(self, kind):
        """Return the strategy or optimizer of a kind."""
        steps = steps_of(self.suite, kind, self.flags)
        return strategy(self.suite, kind, self.seed, steps)

    def build(self):
        """Return the network, at the first values of this seed."""
        import keras

        keras.utils.set_random_seed(self.seed)
        shape = self.data()[0][0].shape[1:]
        return self.suite.network(tuple(shape), 10)

    def folder(self, kind, score):
        """Return where the tickets of a case are."""
        return self.work / f"{kind}-{score}"

    def find(self, kind, score, rounds):
        """Find tickets of one score down to a round, or go on to it."""
        import keras

        from keras_es import lottery

        case, folder = self.case(kind, score), self.folder(kind, score)
        if all(self.lines.has(case, r) for r in range(rounds + 1)):
            return

        def keep(model, ticket):
            from keras_es.lottery.masking import plain_values

            path = folder / f"trained-{ticket.round:02d}.npz"
            np.savez(path, *plain_values(model))
            self.lines.add(case, ticket.round, **_measured(ticket.history[-1]))

        ticket = lottery.find(
            self.build, self.method(kind), rounds=rounds, keep=self.flags.keep,
            score=score, folder=folder, on_round=keep, verbose=0,
            **self.arguments(kind),
        )  # fmt: skip
        for row in ticket.history:  # of a run whose lines were lost
            self.lines.add(case, row["round"], **_measured(row))
        keras.backend.clear_session()

    def ticket(self, kind, score):
        """Return the last ticket of a case, or None if it has not come so far."""
        from keras_es.lottery import Ticket

        path = self.folder(kind, score) / "ticket.npz"
        return Ticket.load(path) if path.exists() else None

    def trained(self, kind, score, round_index):
        """Return the trained model of a round, or None."""
        ticket = self.ticket(kind, score)
        path = self.folder(kind, score) / f"trained-{round_index:02d}.npz"
        if ticket is None or not path.exists():
            return None
        with np.load(path) as file:
            values = [file[name] for name in file.files]
        return ticket.at(round_index)._with(values=values).model()

    def train(self, ticket, kind, case, round_index, dataset=None):
        """Train a ticket and add its row."""
        import keras

        from keras_es import lottery

        if self.lines.has(case, round_index):
            return
        _, logs = lottery.transfer(
            ticket, self.method(kind), **self.arguments(kind, dataset)
        )
        row = {"weights": ticket.nonzero, "density": ticket.density, **logs}
        self.lines.add(case, round_index, **_measured(row))
        keras.backend.clear_session()

    def controls(self, kind, rounds):
        """Train the controls of the first score's tickets at each round."""
        score = SCORES[kind][0]
        ticket = self.ticket(kind, score)
        for r in self.flags.at or range(1, rounds + 1):
            if ticket is None or len(ticket.history) <= r:
                print(f"{self.work}: {kind} {score} has not come to round {r}")
                return
            for control in self.suite.controls:
                if control in (self.flags.score or [control]):
                    # Its places follow from the seed, however far the ticket goes.
                    other = ticket.at(r).control(control, self.seed)
                    self.train(other, kind, self.case(kind, control), r)

    def transfers(self, rounds):
        """Train tickets by other methods and on the other data, random ones beside."""
        far = min(FAR, rounds)
        others = [d for d in self.suite.datasets if d != self.dataset]
        for score in ("snr", "random"):
            ticket = self.ticket("es", "snr")
            if ticket is None or ticket.round < far:
                print(f"{self.work}: es snr has not come to round {far}")
                continue
            ticket = ticket.at(far)
            if score == "random":
                ticket = ticket.control("random", self.seed)
            for kind in ("es", "pgpe", "gradient"):
                for dataset in (
                    [self.dataset, *others] if kind == "es" else ([self.dataset])
                ):
                    case = self.case(kind, score, transfer_to=dataset, found_by="es")
                    self.train(ticket, kind, case, far, dataset)

    def optima(self, rounds):
        """Measure lines between optima of rounds and of seeds, and their flatness."""
        import keras

        from keras_es import lottery

        x, y = self.data()[0]
        data = x[:10000], y[:10000]
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        other = Study(self.name, self.dataset, self.seed + 1, self.flags)
        for kind, scores in self.suite.scores.items():
            score = scores[0]
            for r in range(0, rounds + 1, 4):
                model = self.trained(kind, score, r)
                if model is None:
                    continue
                case = self.case(kind, score, measured="flatness")
                if not self.lines.has(case, r):
                    found = lottery.flatness(model, data, loss=loss)
                    self.lines.add(case, r, **_lists(found))
                ends = {
                    "next": self.trained(kind, score, r + 1),
                    "seed": other.trained(kind, score, r),
                }
                for end, second in ends.items():
                    case = self.case(kind, score, measured=f"line to {end}")
                    if second is None or self.lines.has(case, r):
                        continue
                    found = lottery.connectivity(model, second, data, loss=loss)
                    self.lines.add(case, r, **_lists(found))
            keras.backend.clear_session()


def _measured(row):
    """Return what a row of the file has of a history."""
    names = {"val_accuracy": "accuracy", "val_loss": "loss"}
    found = {names[n]: round(row[n], 5) for n in names if n in row}
    known = ("weights", "density", "nonzero", "seconds")
    return {n: row[n] for n in known if n in row} | found


def _lists(found):
    """Return a named tuple with lists in place of arrays."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in found._asdict().items()
    }
