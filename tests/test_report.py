"""`sparsity_report` counts what is there, as a table and as a dict."""

import json

import keras
import numpy as np
import pytest

import keras_es
from keras_es.patterns import Block
from tests import architectures
from tests.architectures import MASKED


def model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(4, name="out"),
        ]
    )


def report():
    sparse = keras_es.sparsify(model(), 0.75, exclude=["out"], pattern=Block(4, 1))
    return keras_es.sparsity_report(sparse)


def test_rows_and_totals():
    found = report()
    assert found.rows == [
        {
            "layer": "hidden",
            "weight": "kernel",
            "shape": (8, 16),
            "pattern": "Block(rows=4, cols=1)",
            "size": 128,
            "nnz": 32,
            "sparsity": 0.75,
        }
    ]
    assert [d["layer"] for d in found.dense] == ["norm", "out"]
    assert (found.masked, found.nonzero_masked, found.sparsity) == (128, 32, 0.75)
    # Kernels, biases, and four vectors of the normalization.
    assert found.parameters == 8 * 16 + 16 + 4 * 16 + 16 * 4 + 4
    assert found.nonzero == found.parameters - 96


def test_the_dict_is_plain():
    found = report()
    again = json.loads(json.dumps(found.as_dict()))
    assert again["sparsity"] == 0.75
    assert again["nonzero"] == found.nonzero
    assert again["rows"][0]["nnz"] == 32


def test_the_table():
    lines = str(report()).splitlines()
    assert lines[0].split() == [
        "layer",
        "weight",
        "shape",
        "pattern",
        "nnz",
        "sparsity",
    ]
    assert lines[2].startswith(
        "hidden  kernel  8x16   Block(rows=4, cols=1)  32   0.75"
    )
    assert "dense: out (Dense, 68 parameters)" in lines
    assert "32 of 128 masked weights are non-zero (sparsity 0.7500)" in lines[-1]


@pytest.mark.parametrize("make", MASKED, ids=lambda f: f.__name__)
def test_parameters_are_those_of_the_dense_model(make):
    dense = make()
    found = keras_es.sparsity_report(keras_es.sparsify(dense, 0.5))
    assert len(found.rows) == MASKED[make]
    assert found.parameters == dense.count_params()
    assert found.parameters == keras_es.sparsity_report(dense).parameters


def test_nnz_is_counted_in_the_deployed_mask():
    sparse = keras_es.sparsify(model(), 0.75)
    (hidden, _) = keras_es.masked_weights(sparse)
    hidden.kernel_mask.assign(np.zeros((8, 16), bool))
    found = keras_es.sparsity_report(sparse)
    assert found.rows[0]["nnz"] == 0
    assert found.rows[0]["sparsity"] == 1.0


def test_rules_may_name_the_layers_of_the_report():
    for make in (architectures.recurrent, architectures.composite):
        dense = make()
        rows = keras_es.sparsity_report(keras_es.sparsify(dense, 0.5)).rows
        exclude = sorted({row["layer"] for row in rows})
        sparse = keras_es.sparsify(dense, 0.5, exclude=exclude)
        assert keras_es.masked_weights(sparse) == []
        listed = {d["layer"] for d in keras_es.sparsity_report(sparse).dense}
        assert listed == set(exclude)


def test_a_model_without_masks():
    found = keras_es.sparsity_report(model())
    assert (found.rows, found.masked, found.sparsity) == ([], 0, 0.0)
    assert found.nonzero == found.parameters


def test_a_unit_of_each_weight_stays_and_the_number_says_so():
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(200)])
    report = keras_es.sparsity_report(keras_es.sparsify(model, 0.9999999))
    assert report.nonzero_masked == 1 and report.sparsity == 1 - 1 / 40_000
    assert "(sparsity 0.9999)" in str(report) and "1.0000" not in str(report)
