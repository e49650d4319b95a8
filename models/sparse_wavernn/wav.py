"""Wav files that are written as they are spoken, and can be played at any time."""

import struct
from pathlib import Path

import numpy as np

HEADER = 44


class WavFile:
    """A mono file of 16 bits whose header is right after every `write`.

    The first `write` makes it, and its folder; until then what is there stays.

    Args:
        path: Where it is made; what was there is replaced.
        sample_rate: Samples in a second.
    """

    def __init__(self, path, sample_rate):
        self.path, self.sample_rate, self.samples = Path(path), sample_rate, 0
        self._file = None

    def write(self, samples):
        """Append int16 samples [n], and make the header say so."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "wb")  # noqa: SIM115 - closed by `close`
        self._file.seek(HEADER + 2 * self.samples)
        self._file.write(np.asarray(samples).astype("<i2").tobytes())
        self.samples += len(samples)
        # After the samples: a header never promises what is not there yet.
        self._write_header()

    @property
    def seconds(self):
        """What has been written."""
        return self.samples / self.sample_rate

    def close(self):
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write_header(self):
        size = 2 * self.samples
        fields = (1, 1, self.sample_rate, 2 * self.sample_rate, 2, 16)
        header = struct.pack("<4sI4s", b"RIFF", HEADER - 8 + size, b"WAVE")
        header += struct.pack("<4sIHHIIHH", b"fmt ", 16, *fields)
        self._file.seek(0)
        self._file.write(header + struct.pack("<4sI", b"data", size))
        self._file.flush()
