"""Breaks the package on purpose, and says which test noticed.

    python -m tests.mutants             # writes tests/mutants.md; half an hour
    python -m tests.mutants "seed of examples"

Each mutant is the package with one text replaced, in a copy. Only those files of tests
run that are to notice it, until the first failure: a mutant that these let live may
still fall by others, so what is written is a lower bound.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "mutants.md"
COPIED = ("keras_es", "tests", "benchmarks", "models", "docs")
FILES = ("conftest.py", "pyproject.toml", "README.md", "train.py")

NOTHING_COLLECTED = 5
FAST, ALL = "python -m tests", "--all alone"


@dataclasses.dataclass
class Mutant:
    """One fault.

    Attributes:
        name: What is wrong.
        file: Below keras_es/.
        old, new: Text, and what it becomes; `old` must be there once.
        tests: Files of tests, those that are to notice it first.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "sign of the search gradient",
        "ops/search.py",
        "gradient = -weighted_noise / (",
        "gradient = weighted_noise / (",
        "tests/ops/test_search.py tests/optimizers/test_evolution.py",
    ),
    Mutant(
        "centred ranks end at n, not n - 1",
        "ops/fitness.py",
        'dtype="float32") / max(n - 1, 1)',
        'dtype="float32") / n',
        "tests/ops/test_fitness.py",
    ),
    Mutant(
        "logarithm of the utilities without + 1",
        "ops/fitness.py",
        "ops.cast(n / 2.0 + 1.0, ranks.dtype)",
        "ops.cast(n / 2.0, ranks.dtype)",
        "tests/ops/test_fitness.py",
    ),
    Mutant(
        "a failed member has the mean's fitness",
        "ops/fitness.py",
        'return ops.where(valid, centred, float("inf"))',
        "return ops.where(valid, centred, 0.0)",
        "tests/ops/test_fitness.py tests/conformance/test_optimizers_nonfinite.py",
    ),
    Mutant(
        "ties in a group go to the last",
        "ops/selection.py",
        "other >= own if j < i else other > own",
        "other >= own if j > i else other > own",
        "tests/ops/test_selection.py",
    ),
    Mutant(
        "one unit too few where scores tie",
        "ops/selection.py",
        "_first_of_ties(ties, k - above)",
        "_first_of_ties(ties, k - above - 1)",
        "tests/ops/test_selection.py",
    ),
    Mutant(
        "a pair's difference counts twice",
        "ops/search.py",
        "return 0.5 * (first - second) * ops.maximum(",
        "return (first - second) * ops.maximum(",
        "tests/ops/test_search.py tests/optimizers/test_estimators.py",
    ),
    Mutant(
        "the std of SNES stays",
        "optimizers/evolution/snes.py",
        "stds.append((std, search.snes_std_update(std.value, square, eta_std)))",
        "stds.append((std, std.value))",
        "tests/optimizers/test_pure_updates.py tests/optimizers/test_evolution.py",
    ),
    Mutant(
        "units that were not active are kept",
        "ops/drop_grow.py",
        "ops.where(active, magnitude, -1.0)",
        "magnitude",
        "tests/optimizers/test_mask_moves.py tests/optimizers/test_scheduled.py",
    ),
    Mutant(
        "slots of weights that come back stay",
        "optimizers/deployment.py",
        "assignments.append((slot, tf.where(grown, start, old)))",
        "assignments.append((slot, old))",
        "tests/optimizers/test_mask_moves.py",
    ),
    Mutant(
        "stale mask: new scores are not decoded into it",
        "layers/masked_weight.py",
        "assignments = [(self.mask_scores, scores), (self.kernel_mask, mask)]",
        "assignments = [(self.mask_scores, scores)]",
        "tests/conformance/test_optimizers_nonzeros.py",
    ),
    Mutant(
        "slots are not put back where the mask is off",
        "optimizers/guarded.py",
        "state = list(variables) + list(optimizer.variables)\n",
        "state = list(variables)\n",
        "tests/conformance/test_optimizers_masked_out_weights.py",
    ),
    Mutant(
        "replicas keep their own gradients (no all-reduce)",
        "distribution/collectives.py",
        "return _all_reduce(tf.distribute.ReduceOp.MEAN, tensors)",
        "return list(tensors)",
        "tests/distribution/test_mirrored.py",
    ),
    Mutant(
        "replicas keep their own losses (no gather)",
        "distribution/collectives.py",
        "joined = tf.distribute.get_replica_context().all_gather(tensor, axis=0)",
        "joined = tf.concat([tensor] * replica_count(), axis=0)",
        "tests/distribution/test_mirrored.py",
    ),
    Mutant(
        "seed of examples is that of the first generation",
        "populations/examples.py",
        "noise.counter_seed(key, optimizer.generation.value, replica_index())",
        "noise.counter_seed(key, 0 * optimizer.generation.value, replica_index())",
        "tests/training/test_sampled_examples.py",
    ),
    Mutant(
        "sampled examples weigh alike",
        "populations/examples.py",
        "factors = importance.weights(probability, index)",
        "factors = tf.ones_like(importance.weights(probability, index))",
        "tests/training/test_sampled_examples.py",
    ),
    Mutant(
        "members that fail count",
        "populations/by_losses.py",
        "valid = tf.math.is_finite(loss) & tf.math.is_finite(fitness)",
        "valid = tf.math.is_finite(tf.zeros_like(loss))",
        "tests/conformance/test_variants.py tests/training/test_pure_es.py",
    ),
    Mutant(
        "moving statistics of the first member",
        "populations/by_losses.py",
        "mean = tf.reduce_sum(values, axis=0) / ",
        "mean = values[0] + 0.0 * ",
        "tests/training/test_pure_es.py::TestBatchNormalization",
    ),
    Mutant(
        "turns begin one step late",
        "optimizers/search/turns.py",
        "turn = self.step.value // self.steps_per_pair",
        "turn = (self.step.value + 1) // self.steps_per_pair",
        "tests/training/test_turns.py",
    ),
    Mutant(
        "layerwise sums are not scaled to the population",
        "noise/weights.py",
        "factor = weights.shape[0] / (group.draws * g)",
        "factor = 1.0",
        "tests/training/test_layerwise.py",
    ),
]


def copy(target):
    """Copy what tests need."""
    for name in COPIED:
        ignore = shutil.ignore_patterns("__pycache__", "*.png")
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, target / name)


def broken(mutant, target):
    """Replace the mutant's text in a copy."""
    path = target / "keras_es" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: expected its text once in {mutant.file}. "
            f"Received: {text.count(mutant.old)} times"
        )
    path.write_text(text.replace(mutant.old, mutant.new))


def caught_by(mutant, marks):
    """Return the first test that fails, or None."""
    with tempfile.TemporaryDirectory(prefix="keras_es_mutant") as folder:
        target = Path(folder) / "sources"
        target.mkdir()
        copy(target)
        broken(mutant, target)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "--tb=no", "-m", marks, *mutant.tests.split()],
            cwd=target,
            env=os.environ | {"PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
        )
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode == 1 and found:
        return found.group(1)
    if done.returncode in (0, NOTHING_COLLECTED):
        return None
    raise RuntimeError(f"{mutant.name}: pytest did not run.\n{done.stdout[-2000:]}")


def row(mutant):
    """Return the line of the table."""
    command, test = FAST, caught_by(mutant, "not slow")
    if test is None:
        command, test = ALL, caught_by(mutant, "slow")
    command, test = (command, f"`{test}`") if test else ("nothing", "")
    return f"| {mutant.name} | `{mutant.file}` | {command} | {test} |"


def check_all():
    """Refuse a list whose texts have gone from the package."""
    for mutant in MUTANTS:
        text = (ROOT / "keras_es" / mutant.file).read_text()
        if text.count(mutant.old) != 1:
            raise ValueError(f"{mutant.name}: its text is not in {mutant.file} once")


def main(names):
    """Run mutants of these names, or all, and then write the table."""
    check_all()
    chosen = [m for m in MUTANTS if not names or m.name in names]
    rows = []
    for mutant in chosen:
        rows.append(row(mutant))
        print(rows[-1], flush=True)
    if names:
        return
    head = (
        "# Mutants\n\nThe package was broken in these places, one at a time, by "
        "`python -m tests.mutants`\n(tests/mutants.py has the texts). The last column "
        "is the first test that failed.\n\n"
        "| what is wrong | in keras_es/ | caught by | test |\n|---|---|---|---|\n"
    )
    TABLE.write_text(head + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
