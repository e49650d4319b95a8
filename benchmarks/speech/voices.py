"""Voices of finished runs: digits said again, and digits from their texts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.speech import bits

TEXT_EPOCHS = 10
"""Of the model of text."""


def load(workdir):
    """Return the model of a run as it was after its last step.

    Args:
        workdir: Folder of the run.
    """
    import models  # noqa: F401 - its classes are in the file
    from keras_es.runs import checkpoints

    path, _, damaged = checkpoints.latest(Path(workdir) / "checkpoints")
    if path is None:
        raise FileNotFoundError(f"{workdir} has no checkpoint {damaged or ''}")
    return checkpoints.load(path)


class Voice:
    """What a run of sparse_wavernn speaks with, many utterances at once.

    Args:
        model: A `SparseWaveRNN`.
        count: How many utterances.
    """

    def __init__(self, model, count):
        from models.sparse_wavernn import Generator

        self.generator = Generator(model, voices=count)

    def __call__(self, mels, seed=0):
        """Return the sounds of frames, int16 arrays.

        Args:
            mels: List of [frames, mels], one for each utterance.
            seed: Integer.
        """
        from models.sparse_wavernn.generator import side_by_side

        sounds = self.generator(side_by_side(mels), seed)
        hop = self.generator.hop
        return [s[: len(m) * hop] for s, m in zip(sounds, mels, strict=True)]


def text_run(dataset, workdir):
    """Train a dense model of text on a folder, unless that is done; return its error.

    Args:
        dataset: Folder of recordings.
        workdir: Folder of the run.
    """
    words = {
        "dataset": dataset, "model": "text_to_mel", "mask_optimizer": "none",
        "sparsity": 0, "epochs": TEXT_EPOCHS, "workdir": workdir,
    }  # fmt: skip
    script = str(bits.ROOT / "train.py")
    command = [sys.executable, script, *(f"--{k}={v}" for k, v in words.items())]
    summary = Path(workdir, "summary.json")
    if not summary.exists():
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, cwd=bits.ROOT, stdout=quiet)
    return json.loads(summary.read_text(encoding="utf-8"))["test_mel_error"]


def frames_of_texts(workdir, utterances):
    """Return the frames that a model of text makes of what is said, by whom it is.

    Args:
        workdir: Folder of the run.
        utterances: With `text` and `speaker`.
    """
    layer = load(workdir).get_layer("text_to_mel")
    found = [None] * len(utterances)
    for speaker in sorted({said.speaker for said in utterances}):
        own = [i for i, said in enumerate(utterances) if said.speaker == speaker]
        texts = [utterances[i].text for i in own]
        for i, mel in zip(own, layer.speak(texts, speaker), strict=True):
            found[i] = np.asarray(mel, "float32")
    return found
