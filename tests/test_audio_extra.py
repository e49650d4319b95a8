"""The native ops of tensorflow-io, where the `audio` extra is installed."""

import io
import wave

import numpy as np
import pytest

pytestmark = pytest.mark.audio


def test_native_audio_ops_load_and_decode():
    tfio = pytest.importorskip("tensorflow_io", reason="needs the audio extra")
    samples = np.round(8000 * np.sin(np.arange(800) / 5)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes(samples.tobytes())
    decoded = tfio.audio.decode_wav(buffer.getvalue(), dtype="int16")
    np.testing.assert_array_equal(decoded[:, 0], samples)
