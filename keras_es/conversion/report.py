"""Which weights are masked, how, and how many are non-zero."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_es import _compat
from keras_es.layers import tree


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """What `sparsity_report` found.

    Attributes:
        rows: One dict for each masked weight: layer, weight, shape, pattern, size,
            nnz, sparsity.
        dense: One dict for each layer with weights that are not masked: layer, class,
            parameters.
        parameters: Number of trainable and frozen weights of the model without masks
            and scores; those that a block-sparse layer does not store count as well.
        masked: Number of weights under a mask.
        nonzero_masked: Number of those that the deployed masks keep.
    """

    rows: list[dict[str, Any]]
    dense: list[dict[str, Any]]
    parameters: int
    masked: int
    nonzero_masked: int

    @property
    def sparsity(self) -> float:
        """Share of zeros among the masked weights."""
        return 1.0 - self.nonzero_masked / self.masked if self.masked else 0.0

    @property
    def nonzero(self) -> int:
        """Number of weights of the whole model that masks keep or do not touch."""
        return self.parameters - self.masked + self.nonzero_masked

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values."""
        return {
            **dataclasses.asdict(self),
            "sparsity": self.sparsity,
            "nonzero": self.nonzero,
        }

    def __str__(self):
        """Return a table."""
        head = ("layer", "weight", "shape", "pattern", "nnz", "sparsity")
        table = [head]
        for row in self.rows:
            shape = "x".join(map(str, row["shape"]))
            table.append(
                (row["layer"], row["weight"], shape, row["pattern"],
                 f"{row['nnz']:,}", share_text(row["sparsity"]))
            )  # fmt: skip
        lines = table_lines(table, str.ljust)
        lines += [
            f"dense: {d['layer']} ({d['class']}, {d['parameters']:,} parameters)"
            for d in self.dense
        ]
        lines.append(
            f"{self.nonzero_masked:,} of {self.masked:,} masked weights are non-zero "
            f"(sparsity {share_text(self.sparsity)}); the model keeps "
            f"{self.nonzero:,} of {self.parameters:,} parameters"
        )
        return "\n".join(lines)


def table_lines(table: Sequence[tuple[str, ...]], justify: Callable) -> list[str]:
    """Return the lines of a table whose first row is its head.

    Args:
        table: Rows of as many texts each.
        justify: `str.ljust` or `str.rjust`, for all columns but the first.
    """
    first, *others = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "  ".join(
            [head.ljust(first), *(justify(c, w) for c, w in zip(cells, others))]
        ).rstrip()
        for head, *cells in table
    ]
    rule = "  ".join("-" * width for width in (first, *others))
    return [lines[0], rule, *lines[1:]]


def share_text(share: float) -> str:
    """Return a share with four digits, 1.0000 only if it is all.

    Example:

    >>> share_text(0.12345), share_text(0.99997), share_text(1.0)
    ('0.1235', '0.9999', '1.0000')
    """
    return f"{share if share == 1.0 else min(share, 0.9999):.4f}"


def sparsity_report(model: keras.Model) -> SparsityReport:
    """Count what the deployed masks keep.

    Args:
        model: A Keras model (or layer), built.

    Returns:
        `SparsityReport`: `print` it for a table, `as_dict()` for the numbers.

    Raises:
        ValueError: If it is no model, or not built.

    Example:

    >>> import keras
    >>> from keras_es import sparsify
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    >>> sparsity_report(sparsify(model, sparsity=0.9)).sparsity
    0.9
    """
    if not isinstance(model, keras.layers.Layer) or not model.built:
        raise ValueError(
            "`model` must be a Keras model with weights: give it an Input, call it on "
            f"data or call `build`. Received: model={model!r}"
        )
    rows, dense, parameters = [], [], 0
    layers = [("", model), *tree.walk(model)]
    # The weights of a recurrent layer are in its cell; rules name the layer.
    cells = {id(layer.cell): p for p, layer in layers if tree.masks_cell(layer)}
    for path, layer in layers:
        path = cells.get(id(layer), path)
        masked = layer.masked_weights if tree.has_masks(layer) else ()
        hidden = {id(v) for m in masked for v in m.choice}
        own = [v for v in _compat.own_variables(layer) if id(v) not in hidden]
        count = sum(int(v.shape.num_elements()) for v in own)
        count += sum(m.size - int(m.kernel.shape.num_elements()) for m in masked)
        parameters += count
        if own and not masked:
            name = type(layer).__name__
            dense.append({"layer": path, "class": name, "parameters": count})
        rows += [_row(path, m) for m in masked]
    return SparsityReport(
        rows,
        dense,
        parameters,
        masked=sum(row["size"] for row in rows),
        nonzero_masked=sum(row["nnz"] for row in rows),
    )


def _row(path, masked):
    nnz = masked.deployed_nnz()
    return {
        "layer": path,
        "weight": masked.attribute,
        "shape": masked.shape,
        "pattern": str(masked.pattern),
        "size": masked.size,
        "nnz": nnz,
        "sparsity": 1.0 - nnz / masked.size,
    }
