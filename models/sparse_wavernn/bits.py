"""A sample of 16 bits as two numbers of 8 bits."""

from keras import ops

SILENCE = 0
"""What is taken to come before the first sample."""


def split(samples):
    """Return the upper and the lower 8 bits of samples, c and f in 0 ... 255.

    s + 32768 = 256 c + f.

    Args:
        samples: Numbers in [-32768, 32767] of any type that holds them exactly.

    Returns:
        (coarse, fine), int32 tensors of the same shape.
    """
    shifted = ops.cast(samples, "int32") + 32768
    coarse = ops.right_shift(shifted, 8)
    return coarse, shifted - 256 * coarse


def join(coarse, fine):
    """Return the samples, int32, whose bits `split` returned."""
    return 256 * ops.cast(coarse, "int32") + ops.cast(fine, "int32") - 32768


def scaled(bits):
    """Return numbers in 0 ... 255 as floats in [-1, 1]."""
    return ops.cast(bits, "float32") * (1.0 / 127.5) - 1.0
