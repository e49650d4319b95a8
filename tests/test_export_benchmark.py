"""The tables of `python -m benchmarks.export`; its numbers are not tested here."""

import argparse

import pytest

from benchmarks.export import __main__, formats, networks, quantized


def test_a_small_table_of_formats():
    pytest.importorskip("ai_edge_litert"), pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    cases = {networks.MLP: (("dense", 0.0), ("blocks of 4 inputs", 0.9))}
    rows = formats.run(argparse.Namespace(rounds=1), cases, width=64)
    assert max(r["error"] for r in rows if "16" not in r["format"]) < 0.05
    assert [r["of_dense"] for r in rows if r["pattern"] == "dense"] == [1.0] * 7
    lines = formats.table(rows).splitlines()
    assert [line.count("|") for line in lines] == [9, 9, 9, 9]
    assert lines[3].startswith("| blocks of 4 inputs, 90% | ")


def test_tables_show_what_is_missing_by_a_dash():
    row = {"dataset": "a", "model": "b", "method": "dense", "weights": "int8, Keras"}
    row |= {"accuracy": 0.5, "zeros": 0.9, "bytes": None, "gzip_bytes": None}
    line = "| a, b | dense | int8, Keras | 0.5000 | 90.0% | - | - |"
    assert quantized.table([row]).splitlines()[-1] == line


def test_an_unknown_suite_is_refused(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["--suite=speed"])
    assert "--suite: expected names from formats, quantize" in capsys.readouterr().err
