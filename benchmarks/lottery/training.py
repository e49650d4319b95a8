"""The cases of the study: tickets, controls, transfers, lines and flatness."""

import json
import math
import shutil
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

FAR = 0.055
"""Share of the weights that is left, about, in tickets that are transferred."""


class Lines(Results):
    """The rows of a study; what is there already is not done again.

    Args:
        path: The file, made with the first row.
    """

    def __init__(self, path):
        super().__init__(path, ("case", "round"))

    def has(self, case, round_index):
        """Tell whether a round of a case is known."""
        return self.row(case, round_index) is not None

    def row(self, case, round_index):
        """Return the row of a round of a case, or None."""
        wanted = key({"case": case, "round": round_index}, self.keys)
        found = (row for row in self.rows() if key(row, self.keys) == wanted)
        return next(found, None)

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

        steps = steps_of(self.suite, kind, self.flags)
        return {
            "data": self.data(dataset)[0], "metrics": None, "steps": steps,
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
            row = {**ticket.history[-1], **self.tested(model)}
            self.lines.add(case, ticket.round, **_measured(row))

        self._begin_with_dense(kind, score)
        ticket = lottery.find(
            self.build, self.method(kind), rounds=rounds, keep=self.flags.keep,
            score=score, folder=folder, on_round=keep, verbose=0,
            **self.arguments(kind),
        )  # fmt: skip
        for row in ticket.history:  # of another score, or of lines that were lost
            known = self.lines.has(case, row["round"])
            model = None if known else self.trained(kind, score, row["round"])
            if model is not None:
                row = {**row, **self.tested(model)}
                self.lines.add(case, row["round"], **_measured(row))
        keras.backend.clear_session()

    def _begin_with_dense(self, kind, score):
        """Begin with the dense fit of the first score: it is that of magnitude, too."""
        from keras_es.lottery import scores

        first = SCORES[kind][0]
        path = self.folder(kind, score) / "ticket.npz"
        dense = self.trained(kind, first, 0)
        if score != "magnitude" or score == first or path.exists() or dense is None:
            return
        ticket = self.ticket(kind, first).at(0)
        count = round(ticket.size * self.flags.keep)
        found = scores.magnitude(dense)
        kept = scores.survivors(found, ticket.masks, count, layerwise=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder(kind, first) / "trained-00.npz", path.parent)
        settings = {**ticket.settings, "score": score}
        ticket._with(settings=settings).pruned(kept).save(path)

    def tested(self, model, dataset=None):
        """Return loss and accuracy on the test set.

        By plain calls: to compile an evaluation takes longer than all of them.
        """
        import keras

        x, labels = self.data(dataset)[1]
        logits = keras.ops.concatenate(
            [model(part, training=False) for part in np.array_split(x, 10)]
        )
        losses = keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
        hits = np.argmax(logits, -1) == labels
        return {"val_loss": float(np.mean(losses)), "val_accuracy": float(hits.mean())}

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
        # What a ticket does where it was found is known, and needs no other fit.
        known = self.lines.row(self.case(kind, case["score"]), round_index)
        same = case.get("transfer_to") == self.dataset and kind == case["found_by"]
        if same and known is not None:
            known = {k: v for k, v in known.items() if k not in ("case", "round")}
            self.lines.add(case, round_index, **known)
            return
        model, logs = lottery.transfer(
            ticket, self.method(kind), **self.arguments(kind, dataset)
        )
        logs = {**logs, **self.tested(model, dataset)}
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
        far = min(round(math.log(FAR, self.flags.keep)), rounds)
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
            if kind not in (self.flags.kind or [kind]):
                continue
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
