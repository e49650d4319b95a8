"""WaveRNN in NumPy, sample by sample, as its equations are written."""

import numpy as np


def weights_of(model):
    """Return the effective weights of a `SparseWaveRNN` by name, in float64."""

    def array(value):
        return np.asarray(value, "float64")

    cell, inputs = model.get_layer("wavernn").cell, model.get_layer("inputs")
    net = model.get_layer("conditioning")
    found = {f"R_{g}": getattr(cell, f"R_{g}").kernel for g in "ure"}
    found |= {
        "I_previous": inputs.previous_kernel, "I_coarse": inputs.coarse_kernel,
        "b": inputs.bias, "window": net.window.kernel, "window_b": net.window.bias,
        "mix": net.mix.kernel, "mix_b": net.mix.bias, "gates": net.gates.kernel,
    }  # fmt: skip
    for name in ("O1", "O2", "O3", "O4"):
        layer = model.get_layer(name)
        found |= {name: layer.kernel, f"{name}_b": layer.bias}
    return {name: array(value) for name, value in found.items()}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


class WaveRNN:
    """One voice: a hidden state and the sample before."""

    def __init__(self, weights, hop, mel):
        self.w, self.hop = weights, hop
        self.units = len(weights["R_u"])
        self.h, self.before = np.zeros(self.units), 0
        self.frames = self.conditioning(np.asarray(mel, "float64"))

    def conditioning(self, mel):
        mel, w = (mel + 5.75) / 3.5, self.w
        windows = [mel[i : i + 5].ravel() for i in range(len(mel) - 4)]
        first = np.maximum(np.array(windows) @ w["window"] + w["window_b"], 0.0)
        return np.maximum(first @ w["mix"] + w["mix_b"], 0.0) @ w["gates"]

    def at(self, t):
        """Return what is said of sample t, linear between the middles of frames."""
        position = (t + 0.5) / self.hop + 0.5  # that of frame 0 is at 1
        low = int(np.floor(position))
        share = position - low
        return (1.0 - share) * self.frames[low] + share * self.frames[low + 1]

    def step(self, t, sample):
        """Return ln p of all c, and of all f given the sample's c; go on with it."""
        w, n, half = self.w, self.units, self.units // 2
        c0, f0 = divmod(self.before + 32768, 256)
        c, _ = divmod(sample + 32768, 256)
        said, new = self.at(t), np.zeros(n)

        def gates(units, coarse):
            x = {}
            for i, gate in enumerate("ure"):
                columns = np.arange(n)[units] + i * n
                x[gate] = (
                    w["I_previous"][0, columns] * (c0 / 127.5 - 1.0)
                    + w["I_previous"][1, columns] * (f0 / 127.5 - 1.0)
                    + w["b"][columns]
                    + said[columns]
                )
                if coarse is not None:
                    x[gate] += w["I_coarse"][i] * (coarse / 127.5 - 1.0)
            u = sigmoid(self.h @ w["R_u"][:, units] + x["u"])
            r = sigmoid(self.h @ w["R_r"][:, units] + x["r"])
            e = np.tanh(r * (self.h @ w["R_e"][:, units]) + x["e"])
            return u * self.h[units] + (1.0 - u) * e

        new[:half] = gates(slice(0, half), None)
        hidden = np.maximum(new[:half] @ w["O1"] + w["O1_b"], 0.0)
        log_c = np.log(softmax(hidden @ w["O2"] + w["O2_b"]))
        new[half:] = gates(slice(half, n), c)
        hidden = np.maximum(new[half:] @ w["O3"] + w["O3_b"], 0.0)
        log_f = np.log(softmax(hidden @ w["O4"] + w["O4_b"]))
        self.h, self.before = new, sample
        return log_c, log_f


def log_likelihoods(weights, hop, samples, mel):
    """Return ln p(c) and ln p(f | c) of all 256 values, [T, 2, 256]."""
    voice = WaveRNN(weights, hop, mel)
    return np.array([voice.step(t, int(s)) for t, s in enumerate(samples)])
