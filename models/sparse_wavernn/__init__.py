"""`sparse_wavernn`: samples of sound from log-mel frames, one after the other.

WaveRNN of Kalchbrenner et al. 2018, "Efficient Neural Audio Synthesis", arXiv
1802.08435, conditioned on frames. `SparseWaveRNN` makes the model for training, which
`keras_es.sparsify` masks; `Generator` speaks with it.
"""

from models.sparse_wavernn.bits import join, split
from models.sparse_wavernn.generator import Generator
from models.sparse_wavernn.losses import Bits, DualSoftmax
from models.sparse_wavernn.network import (
    CONTEXT,
    DENSE_LAYERS,
    SparseWaveRNN,
    pad_frames,
)

__all__ = [
    "CONTEXT",
    "DENSE_LAYERS",
    "Bits",
    "DualSoftmax",
    "Generator",
    "SparseWaveRNN",
    "join",
    "pad_frames",
    "split",
]
