"""How estimates are compared with the truth."""

import numpy as np


def assert_unbiased(samples, truth, atol=1e-9):
    """Check that the mean of independent estimates is within 5 standard errors.

    Args:
        samples: [n, ...].
        truth: [...].
        atol: What is allowed besides, for coordinates that do not vary.
    """
    samples = np.asarray(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - truth), 5 * error + atol)
