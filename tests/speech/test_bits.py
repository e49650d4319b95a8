"""benchmarks.speech of bits: runs, their commands, and what is not run again."""

import json
from types import SimpleNamespace

import pytest

import models
import train
from benchmarks.speech import __main__ as speech
from benchmarks.speech import bits
from keras_es.runs import settings


def flags(**own):
    known = {"seeds": 1, "epochs": 1, "recordings": 20, "methods": "", "sparsities": ""}
    return SimpleNamespace(**known | own)


def test_commands_are_what_train_takes():
    for suite in bits.SUITES:
        for case in bits.cases(suite, flags(seeds=2)):
            _, script, *words = bits.command(case, ".", "/nowhere")
            f = train.parse([script, *words])
            settings.check(f, list(models.ALL))
            assert settings.given_options(f)["units"] == case["units"]


def test_sizes_have_as_many_nonzeros():
    counts = [(3 + 0.5) * n * n * (1 - sparsity) for n, sparsity in bits.SIZES]
    assert max(counts) < 1.05 * min(counts)


def test_whole_networks_have_as_many_nonzeros():
    counts = []
    for n, sparsity in (bits.SIZES[0], bits.WHOLE):
        model = models.sparse_wavernn.SparseWaveRNN(n, hop=100)
        counts.append(model.count_params() - sparsity * 3.5 * n * n)
    assert max(counts) < 1.01 * min(counts)


def test_what_is_in_the_results_is_not_run_again(tmp_path, monkeypatch, capsys):
    asked = []

    def trained(words, **_):
        asked.append(words)
        [folder] = [w.partition("=")[2] for w in words if w.startswith("--workdir=")]
        summary = {
            "test_bits": 9.0, "steps": 7, "nonzero_parameters": 1000, "layers": [],
            "train_seconds": 1.0, "steps_per_second": 7.0,
        }  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(bits, "RESULTS", tmp_path)
    monkeypatch.setattr(bits.subprocess, "run", trained)
    for index in (3, 30):
        (tmp_path / f"1_ann_{index}.wav").touch()
    words = [
        "--suite=sizes", f"--work={tmp_path / 'work'}", f"--dataset={tmp_path}",
        "--most=2",
    ]  # fmt: skip
    speech.main(words)
    [links] = (tmp_path / "work").glob("digits-*")
    assert [path.name for path in links.iterdir()] == ["1_ann_3.wav"]
    speech.main(words)
    assert len(asked) == 4
    capsys.readouterr()
    speech.main([*words, "--report"])
    shown = capsys.readouterr().out
    assert len(asked) == 4
    assert "| dense | 224 | 0% | 1,000 | 7 | 1 | 9.000 |" in shown
    assert "| guided_es | 896 | 94% |" in shown


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--recordings=5", ["more than the 5 for test", "Received: 5"]),
        ("--methods=rigl,dense", ["expected names from none, ", "Received: 'dense'"]),
        ("--sparsities=0.5", ["0, 0.75, 0.9, 0.94, 0.95", "Received: '0.5'"]),
    ],
)
def test_wrong_flags_are_refused(capsys, flag, parts):
    with pytest.raises(SystemExit):
        speech.main(["--suite=bits", flag])
    said = capsys.readouterr().err
    assert all(part in said for part in parts)


def test_runs_are_chosen_by_method_and_sparsity():
    chosen = bits.cases("bits", flags(methods=["none", "rigl"], sparsities=[0.0, 0.9]))
    assert [(c["method"], c["sparsity"]) for c in chosen] == [
        ("none", 0.0), ("rigl", 0.9)
    ]  # fmt: skip
    [large] = bits.cases("sizes", flags(sparsities=[0.94]))
    assert large["units"] == 896 and large["method"] == bits.MASKED
