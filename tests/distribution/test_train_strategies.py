"""train.py --strategy: results, resuming, and devices that are not to be had."""

import json
import signal

import numpy as np
import pytest

from keras_es.runs import checkpoints
from tests.test_train import final_state, notes, read_summary, run, start, wait_for

pytestmark = pytest.mark.slow

MIRRORED = (
    "--strategy=mirrored", "--virtual_devices=2", "--epochs=3", "--batch_size=128",
    "--sparsity=0.75", "--jit_compile=false",
)  # fmt: skip


@pytest.mark.release
def test_sigterm_under_mirrored_and_again_ends_in_the_same_bits(tmp_path):
    code, output, errors = run(*MIRRORED, "--workdir=whole", cwd=tmp_path)
    assert code == 0, errors
    assert "2 replicas" in output
    assert read_summary(tmp_path / "whole")["replicas"] == 2
    flags = (*MIRRORED, "--workdir=stopped")
    process = start(*flags, cwd=tmp_path)
    wait_for(lambda: notes(tmp_path / "stopped"), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    folder = tmp_path / "stopped" / "checkpoints"
    _, progress, damaged = checkpoints.latest(folder)
    assert damaged == []
    assert f"stopped by SIGTERM after step {progress.step};" in errors
    code, output, errors = run(*flags, cwd=tmp_path)
    assert code == 0, errors
    assert f"resuming after step {progress.step}" in output
    ours, theirs = (final_state(tmp_path / name) for name in ("stopped", "whole"))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def only_line(tmp_path, *flags):
    """Run train.py, which must fail at once; return the one line it says."""
    code, output, errors = run(*flags, cwd=tmp_path)
    (line,) = errors.splitlines()
    assert code in (1, 2) and output == ""
    assert list(tmp_path.iterdir()) == []
    return code, line


@pytest.mark.parametrize("tpu", ["local", "grpc://127.0.0.1:1"])
def test_unreachable_tpu(tmp_path, tpu):
    code, line = only_line(tmp_path, "--strategy=tpu", f"--tpu={tpu}")
    assert code == 1
    assert f"no TPU answers to --tpu={tpu}" in line


def test_several_workers_need_tf_config(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    _, line = only_line(tmp_path, "--strategy=multi_worker")
    example = line.partition("such as ")[2].partition(". Received")[0]
    assert json.loads(example)["task"] == {"type": "worker", "index": 0}


def test_batch_that_replicas_cannot_share(tmp_path):
    flags = ("--strategy=mirrored", "--virtual_devices=3", "--batch_size=128")
    _, line = only_line(tmp_path, *flags)
    assert "--batch_size=128 is not a multiple of the 3 replicas" in line
