"""Lines between optima and flatness, on cases with known answers."""

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_es import lottery
from tests.lottery.common import DATA, build


def linear(weights, bias=0.0):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.set_weights([np.array(weights, "float32")[:, None], np.array([bias])])
    return model


X = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], "float32")
Y = np.zeros((3, 1), "float32")


def test_the_barrier_of_a_double_well():
    class Product(keras.layers.Layer):
        """x a b, which is x at (1, 1) and at (-1, -1), and 0 between them."""

        def build(self, shape):
            self.a = self.add_weight(shape=(), name="a")
            self.b = self.add_weight(shape=(), name="b")

        def call(self, x):
            return x * self.a * self.b

        def get_config(self):
            return super().get_config()

    keras.saving.register_keras_serializable("test_optima")(Product)
    ends = []
    for sign in (1.0, -1.0):
        model = keras.Sequential([keras.Input((1,)), Product()])
        model.set_weights([np.array(sign), np.array(sign)])
        ends.append(model)
    data = np.ones((4, 1), "float32"), np.ones((4, 1), "float32")
    line = lottery.connectivity(*ends, data, 5, loss="mse", metrics=())
    # L(alpha) = (1 - (1 - 2 alpha)**2)**2
    wanted = (1.0 - (1.0 - 2.0 * line.positions) ** 2) ** 2
    np.testing.assert_allclose(line.losses, wanted, atol=1e-6)
    assert line.barrier == pytest.approx(1.0) and line.errors is None


def test_a_convex_line_has_no_barrier_and_a_masked_model_its_effective_weights():
    ticket = lottery.Ticket.dense(linear([1.0, 2.0]))
    half = {name: np.array([[True], [False]]) for name in ticket.masks}
    masked = ticket.pruned(half).model()
    line = lottery.connectivity(
        masked, linear([0.0, 0.0]), (X, Y), 3, loss="mse", metrics=()
    )
    assert line.losses[0] == pytest.approx(2.0 / 3.0)  # (1 + 0 + 1) / 3
    assert line.barrier == pytest.approx(0.0, abs=1e-6)


def test_the_loss_of_a_compiled_model_is_taken_as_it_is():
    model = linear([1.0, 2.0])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    line = lottery.connectivity(model, model, (X, Y), 3, metrics=None)
    assert line.losses[0] == pytest.approx(1.0 + 16.0 + 9.0)


def test_statistics_are_computed_again_at_each_point():
    def model(scale):
        layers = [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
        one = keras.Sequential([*layers, keras.layers.BatchNormalization(epsilon=1e-6)])
        values = one.get_weights()
        values[0] = np.array([[scale]])
        one.set_weights(values)
        return one

    x = np.array([[-1.0], [1.0], [-1.0], [1.0]], "float32")
    line = lottery.connectivity(
        model(1.0), model(3.0), (x, x), 3, loss="mse", metrics=(), batch_size=2
    )
    # Normalized, x is x at any scale; with statistics of the start it would be 3 x.
    np.testing.assert_allclose(line.losses, 0.0, atol=1e-5)


def test_the_eigenvalue_is_that_of_the_exact_hessian():
    a = np.concatenate([X, np.ones((3, 1))], axis=1)
    exact = np.linalg.eigvalsh(2.0 / 3.0 * a.T @ a)[-1]
    found = lottery.flatness(
        linear([1.0, -1.0]), (X, Y), (0.0,), 1, loss="mse", batch_size=2
    )
    assert found.eigenvalue == pytest.approx(exact, rel=1e-5)
    # Of a ticket the active entries alone.
    ticket = lottery.Ticket.dense(linear([1.0, -1.0]))
    ticket = ticket.pruned({n: np.array([[True], [False]]) for n in ticket.masks})
    rest = a[:, [0, 2]]
    exact = np.linalg.eigvalsh(2.0 / 3.0 * rest.T @ rest)[-1]
    found = lottery.flatness(ticket.model(), (X, Y), (0.0,), 1, loss="mse")
    assert found.eigenvalue == pytest.approx(exact, rel=1e-5)


def test_the_loss_under_noise_of_a_quadratic():
    found = lottery.flatness(
        linear([1.0, 0.0]), (X, Y), (0.0, 0.5), 60, iterations=1, loss="mse"
    )
    # The kernel's norm is 1, of two entries: E L = L + 0.25 / 2 * mean |x|**2.
    wanted = 2.0 / 3.0 + 0.125 * np.mean(np.sum(X**2, axis=1))
    error = found.stds[1] / np.sqrt(60)
    assert abs(found.losses[1] - wanted) < 5.0 * error
    assert found.losses[0] == pytest.approx(2.0 / 3.0) and found.stds[0] == 0.0


def test_pictures():
    line = lottery.Connectivity(np.linspace(0, 1, 3), np.ones(3), None, 0.0, None)
    flat = lottery.Flatness(np.zeros(2), np.ones(2), np.ones(2), 1.0)
    ticket = lottery.Ticket.dense(build())
    ticket.history = [{"density": 1.0, "val_accuracy": 0.9}]
    axes = Figure().subplots(3)
    lottery.plot_rounds(axes[0], {"snr": ticket, "rows": ticket.history})
    lottery.plot_connectivity(axes[1], {"line": line})
    lottery.plot_flatness(axes[2], {"flat": flat})
    assert [len(a.lines) > 0 for a in axes] == [True] * 3
    with pytest.raises(ValueError, match="`name` must be a key of the history"):
        lottery.plot_rounds(axes[0], {"snr": ticket}, "val_loss")
    with pytest.raises(ValueError, match="`lines` must be a dict"):
        lottery.plot_connectivity(axes[0], {})
    with pytest.raises(ValueError, match="`axes` must be axes"):
        lottery.plot_flatness(None, {"flat": flat})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: lottery.connectivity(m, m, DATA, 2), "`points` must be an integer"),
        (lambda m: lottery.connectivity(m, m, DATA), "`loss` must be given"),
        (lambda m: lottery.connectivity(m, linear([1, 1]), DATA, loss="mse"),
         "weights of the same shapes"),
        (lambda m: lottery.connectivity(3, m, DATA), "`model` must be a keras.Model"),
        (lambda m: lottery.flatness(m, DATA, loss="mse", scales=(-1,)), "at least 0"),
        (lambda m: lottery.flatness(m, DATA[0], loss="mse"), "`data` must be a tuple"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(build())
    assert "Received: " in str(error.value)
