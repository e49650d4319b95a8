"""The end of a run: export, evaluation, report, summary, and the table at the end."""

import contextlib
import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import _files as files
from keras_es.conversion.report import share_text
from keras_es.conversion.strip import strip_masks
from keras_es.layers import tree
from keras_es.runs import tasks, tensorboard
from keras_es.runs.checkpoints import Progress
from keras_es.runs.errors import RunError, different_flags
from keras_es.runs.task import Line
from keras_es.runs.workdir import Workdir


def finish(
    workdir: Workdir, model: keras.Model, progress: Progress, data: Any
) -> dict[str, Any]:
    """Export and evaluate the stripped model, draw the report, write the summary.

    Args:
        workdir: An entered `keras_es.runs.workdir.Workdir`.
        model: The trained model.
        progress: Its progress.
        data: The data set.

    Returns:
        The summary, a dict that JSON can hold.
    """
    rows, masks, plain = _take_masks_off(model)
    folder = workdir.path / "saved_model"
    files.replace_folder(folder, lambda partial: _export(plain, partial))
    kind = tasks.of(workdir.config["dataset"], workdir.config["model"])
    # What is reported is what the exported file does, not what it should do.
    summary = {**workdir.config, **kind.evaluate(folder, data)}
    report = workdir.path / "report.png"
    summary |= {
        "sparsity": _sparsity(rows),
        "target_sparsity": workdir.config["sparsity"],
        "parameters": int(plain.count_params()),
        "nonzero_parameters": sum(
            int(np.count_nonzero(w)) for w in plain.get_weights()
        ),
        "steps": progress.step,
        "train_seconds": round(progress.seconds, 3),
        "steps_per_second": _rate(progress),
        "saved_model": str(folder),
        "report": str(report),
        **kind.summary(data),
        "layers": rows,
        "versions": _versions(),
    }
    title = (
        f"{summary['dataset']}, {summary['model']}, {summary['mask_optimizer']}, "
        f"seed {summary['seed']}\n{kind.result(summary)} at "
        f"{share_text(summary['sparsity'])} sparsity"
    )
    files.replace_file(
        report,
        lambda partial: kind.draw_report(
            partial, progress.history, masks, title, data, plain
        ),
    )
    summary = _finite(summary)
    files.write_text(workdir.path / "summary.json", json.dumps(summary, indent=1))
    return summary


def _take_masks_off(model):
    """Return the rows of the summary, the masks by name, and the plain model."""
    weights = tree.masked_weights(model)
    if not weights:
        return [], {}, model
    masks = {
        tensorboard.weight_name(model, w): tensorboard.deployed_mask(w) for w in weights
    }
    rows = [
        {
            "weight": name,
            "shape": list(weight.shape),
            "pattern": str(weight.pattern),
            "nnz": int(np.count_nonzero(mask)),
            "size": int(mask.size),
            "sparsity": 1.0 - float(np.mean(mask)),
        }
        for weight, (name, mask) in zip(weights, masks.items(), strict=True)
    ]
    return rows, masks, strip_masks(model)


def _export(model, folder):
    """Write a SavedModel; Keras announces it at length on stdout, which is not ours."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        model.export(str(folder), verbose=False)


def _sparsity(rows):
    size = sum(row["size"] for row in rows)
    return 1.0 - sum(row["nnz"] for row in rows) / size if size else 0.0


def _rate(progress):
    if not progress.timed_seconds:
        return None
    return round(progress.timed_steps / progress.timed_seconds, 2)


def _versions():
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        # The root is loaded before its rooms, which do not import it.
        "keras_es": sys.modules["keras_es"].__version__,
    }


def _finite(value):
    """Replace numbers that JSON has no word for by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


LINES: tuple[Line, ...] = (
    ("sparsity", lambda s: f"{share_text(s['sparsity'])} of the masked weights"),
    (
        "parameters",
        lambda s: f"{s['parameters']:,}, not zero: {s['nonzero_parameters']:,}",
    ),
    (
        "training",
        lambda s: (
            f"{s['steps']:,} steps in {s['train_seconds']:.1f} s, "
            f"{s['steps_per_second'] or math.nan:.0f} steps/s"
        ),
    ),
    ("SavedModel", lambda s: str(s["saved_model"])),
    ("report", lambda s: str(s["report"])),
)


def table(summary: Mapping[str, Any]) -> str:
    """Return the result of a run as a short table.

    Args:
        summary: The dict that `finish` returned or `read` read.
    """
    rows = [
        (row["weight"], f"{row['nnz']:,} of {row['size']:,}")
        for row in summary["layers"]
    ]
    lines = (*tasks.of(summary["dataset"], summary["model"]).lines(), *LINES)
    rows += [(caption, text(summary)) for caption, text in lines]
    width = max(len(caption) for caption, _ in rows)
    return "\n".join(f"  {caption:<{width}}  {text}" for caption, text in rows)


def read(workdir: Workdir) -> tuple[dict[str, Any] | None, str | None]:
    """Return the summary of a finished run, or None, and what is wrong with it.

    One that was damaged is made again by the run; that is no reason to stop.

    Raises:
        RunError: If it is of another run.
    """
    path = workdir.path / "summary.json"
    try:
        summary = workdir.summary()
        if summary is None:
            return None, None
        table(summary)
        owner = {name: summary[name] for name in workdir.config}
        owner["sparsity"] = summary["target_sparsity"]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return None, f"{path} ({error})"
    different = different_flags(workdir.config, owner)
    if different:
        raise RunError(
            f"{path} is not of this run: {different}; remove it, or choose another "
            "--workdir"
        )
    return summary, None
