"""A kill at any point of writing a checkpoint leaves the one before it, or the new."""

import os
import pathlib
import warnings

import pytest

from keras_es import _files as files
from keras_es.runs import checkpoints


class FakeModel:
    """Saves bytes; a real one would only be slower."""

    def __init__(self, content):
        self.content = content

    def save(self, path):
        with open(path, "wb") as file:
            for part in self.content:
                file.write(bytes([part]))
                file.flush()
                os.fsync(file.fileno())


def save(folder, step):
    progress = checkpoints.Progress(step=step)
    checkpoints.save(FakeModel(range(step)), folder, progress, keep=2)


def killed_while_saving(folder, step, call):
    """Save in a copy of this process that dies at its n-th call of the system."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [call]

    def dying(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return function(*args, **kwargs)

        return call

    for name in ("replace", "fsync", "open"):
        setattr(os, name, dying(getattr(os, name)))
    pathlib.Path.unlink = dying(pathlib.Path.unlink)
    try:
        save(folder, step)
    finally:
        os._exit(0)


def test_kill_while_writing_leaves_a_whole_checkpoint(tmp_path):
    codes, steps = [], set()
    for call in range(100):
        folder = tmp_path / str(call)
        save(folder, 3)
        save(folder, 4)
        codes.append(killed_while_saving(folder, 5, call))
        path, progress, damaged = checkpoints.latest(folder)
        assert path.read_bytes() == bytes(range(progress.step))
        assert progress.step in (4, 5) and len(damaged) <= 1
        steps.add(progress.step)
        files.remove_partial(folder)
        save(folder, 6)  # what a restarted run does
        assert checkpoints.latest(folder)[1].step == 6
        if codes[-1] == 0:
            break
    assert codes[-1] == 0 and len(codes) > 10 and set(codes[:-1]) == {9}
    assert steps == {4, 5}


@pytest.mark.parametrize("suffix", [".keras", ".json"])
@pytest.mark.parametrize("size", [0, 1, -1])
def test_truncated_checkpoint_is_named_and_the_one_before_used(tmp_path, suffix, size):
    save(tmp_path, 3)
    save(tmp_path, 4)
    path = tmp_path / f"step-00000004{suffix}"
    path.write_bytes(path.read_bytes()[:size])
    found, progress, damaged = checkpoints.latest(tmp_path)
    assert found.name == "step-00000003.keras" and progress.step == 3
    (line,) = damaged
    assert "step-00000004.keras" in line and "damaged" in line


def test_two_checkpoints_stay(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "step-00000004.json", "step-00000004.keras",
        "step-00000005.json", "step-00000005.keras",
    ]  # fmt: skip
