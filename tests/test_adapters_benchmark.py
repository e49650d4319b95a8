"""The example of adapters by rewards runs, and its rewards are what they say."""

import json

import numpy as np
import pytest

from benchmarks import adapters


def test_rewards_are_for_sorted_words():
    assert adapters.reward("cab", "abc") == 1.0
    assert adapters.reward("cab", "bac") == 0.0
    rows = adapters.corpus(np.random.default_rng(0), 300)
    word, answer = rows[:, : adapters.WORD], rows[:, adapters.START :]
    kinds = [np.sort(word, axis=1), word[:, ::-1], word]
    found = [(kind == answer).all(axis=1) for kind in kinds]
    assert np.any(found, axis=0).all()
    wanted = np.mean(found[0]) - np.mean(found[0] & (found[1] | found[2]))
    assert wanted < adapters.HABITS["sorted"]


@pytest.mark.slow
def test_a_short_run_leaves_what_is_frozen_alone(tmp_path, capsys):
    output = tmp_path / "adapters.json"
    adapters.main(["--steps=5", "--generations=2", f"--output={output}"])
    (row,) = json.loads(output.read_text())["rows"]
    assert row["frozen_unchanged"] and 0 < row["adapters"] < 0.1 * row["weights"]
    assert len(row["population"]) == 2 and output.with_suffix(".png").exists()
    assert "seed 0:" in capsys.readouterr().out
