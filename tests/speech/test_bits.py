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
    return SimpleNamespace(**{"seeds": 1, "epochs": 1, "recordings": 20} | own)


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
    assert len(asked) == 3
    capsys.readouterr()
    speech.main([*words, "--report"])
    shown = capsys.readouterr().out
    assert len(asked) == 3
    assert "| dense | 224 | 0% | 1,000 | 7 | 1 | 9.000 |" in shown
    assert "| guided_es | 896 | 94% |" in shown


def test_too_few_recordings_are_refused(capsys):
    with pytest.raises(SystemExit):
        speech.main(["--suite=bits", "--recordings=5"])
    assert "Received: 5" in capsys.readouterr().err
