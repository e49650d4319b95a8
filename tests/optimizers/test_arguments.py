"""What the constructors refuse, and what they say."""

import keras
import pytest

import keras_es
from keras_es import optimizers
from keras_es.optimizers import SNES, BernoulliNES, GuidedNES, OpenES, Static
from tests.reference import problems

EVERY = pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))


@EVERY
def test_registry_finds_the_class(name):
    assert optimizers.get(name) is optimizers.OPTIMIZERS[name]


def test_registry_names_near_matches():
    with pytest.raises(ValueError, match="Did you mean snes.*Received: 'sness'"):
        optimizers.get("sness")
    with pytest.raises(ValueError, match="must be one of .*'static'.*Received: 5"):
        optimizers.get(5)


@pytest.mark.parametrize("name", sorted({*optimizers.OPTIMIZERS} - {*optimizers.PURE}))
def test_inner_optimizer_is_required(name):
    with pytest.raises(ValueError, match="trains the weights.*inner_optimizer=None"):
        problems.make(name, None)


def test_an_optimizer_that_keras_finds_by_its_module_alone_is_loaded():
    plain = keras.optimizers.Lamb(0.5)
    config = optimizers.StraightThrough(plain, plain.from_config(plain.get_config()))
    again = optimizers.StraightThrough.from_config(config.get_config())
    for found in (again.inner_optimizer, again.score_optimizer):
        assert isinstance(found, keras.optimizers.Lamb)
        assert float(found.learning_rate) == 0.5


@EVERY
def test_inner_optimizer_must_not_move_masks(name):
    with pytest.raises(ValueError, match="an optimizer of weights, not of masks"):
        problems.make(name, Static("sgd"))


@EVERY
@pytest.mark.parametrize("scaled", [False, True])
def test_gradient_accumulation_is_refused_with_a_reason(name, scaled):
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    if scaled:
        inner = keras.optimizers.LossScaleOptimizer(inner)
    reason = "under one mask would be applied under ano"
    if hasattr(optimizers.OPTIMIZERS[name], "derivative"):  # It may have no masks.
        reason = "estimates along directions are averaged within one"
    with pytest.raises(ValueError, match=reason):
        problems.make(name, inner)


@pytest.mark.parametrize(
    "argument",
    [
        {"clipnorm": 1.0},
        {"clipvalue": 1.0},
        {"global_clipnorm": 1.0},
        {"weight_decay": 0.1},
        {"use_ema": True},
        {"ema_momentum": 0.9},
        {"loss_scale_factor": 2.0},
        {"gradient_accumulation_steps": 2},
        {"learning_rate": 0.1},
    ],
    ids=str,
)
@EVERY
def test_arguments_of_the_weights_belong_to_the_inner_optimizer(name, argument):
    (key,) = argument
    cls = optimizers.OPTIMIZERS[name]
    expected = rf"{cls.__name__} has no argument `{key}`. Set it on the inner optimizer"
    with pytest.raises(ValueError, match=expected):
        cls("adam", **argument)


def test_unknown_argument_points_to_the_help():
    with pytest.raises(ValueError, match=r"help\(keras_es.optimizers.SNES\).*sigmma=1"):
        SNES("adam", sigmma=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SNES("adam", 7), "`population_size` must be even.*population_size=7"),
        (lambda: SNES("adam", 0), "integer of at least 2. Received: population_size=0"),
        (lambda: SNES("adam", 4.0), "must be an integer.*population_size=4.0"),
        (lambda: SNES("adam", True), "must be an integer.*population_size=True"),
        (lambda: OpenES("adam", batch_mode="half"), "'split', 'full'.*'half'"),
        (lambda: OpenES("adam", fitness=3), "name of a Keras loss.*Received: 3"),
        (lambda: OpenES("adam", fitness_shaping="best"), "centered_rank.*'best'"),
        (
            lambda: OpenES("adam", sigma=-1),
            "`sigma` must be a number of at least 0.*-1",
        ),
        (lambda: OpenES("adam", sigma="big"), "or a LearningRateSchedule.*'big'"),
        (lambda: SNES("adam", sigma=0), "must be a number above 0.*sigma=0"),
        (lambda: SNES("adam", mean_learning_rate=-1), "`mean_learning_rate`.*=-1"),
        (lambda: SNES("adam", std_learning_rate="x"), "`std_learning_rate`.*='x'"),
        (lambda: GuidedNES("adam", correction=1.5), r"number in \[0, 1\].*=1.5"),
        (lambda: GuidedNES("adam", correction="on"), "`correction` must.*'on'"),
        (lambda: GuidedNES("adam", guidance_momentum=1), r"\[0, 1\).*momentum=1"),
        (lambda: Static("adam", seed="x"), "`seed` must be an integer.*seed='x'"),
        (lambda: Static("adam", seed=0.5), "`seed` must be an integer.*seed=0.5"),
    ],
)
def test_bad_values_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OpenES(None, rank=1), r"spelled noise=.*LowRank\(1\) now.*rank=1"),
        (lambda: OpenES(None, pairs_per_draw=4), r"Full\(pairs_per_draw=4\) now"),
        (lambda: OpenES(None, orthogonal=True), r"noise=.*Orthogonal\(\) now"),
        (lambda: SNES(None, output_sigma=0.3), r"noise=.*Outputs\(0.3\) now"),
        (lambda: SNES(None, layerwise=True), r"noise=.*Layerwise\(\) now"),
        (lambda: OpenES("adam", members_per_step=2), r"Turns\(members=2\) now"),
        (lambda: OpenES("adam", steps_per_pair=8), r"turns=.*Turns\(steps=8\) now"),
        (lambda: OpenES(None, members_per_chunk=8), r"turns=.*Chunks\(8\) now"),
        (lambda: SNES("adam", magnitude_pull=0.1), r"Falling\(None, pull=0.1\) now"),
        (lambda: SNES("adam", sparsity_schedule=1), r"density=.*Falling\(1\) now"),
    ],
)
def test_arguments_of_older_versions_say_how_they_are_spelled_now(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_object_cannot_train_weights_and_scores():
    adam = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="must be another object than `inner_opt"):
        BernoulliNES(adam, score_optimizer=adam)


@EVERY
def test_loss_scaling_around_the_masks_is_refused(name):
    model = problems.make_model()
    outer = keras.optimizers.LossScaleOptimizer(problems.make(name))
    with pytest.raises(ValueError, match="Loss scaling belongs to the optimizer of"):
        model.compile(optimizer=outer, loss="mse")


@EVERY
def test_use_outside_an_es_model_is_refused(name):
    model = keras.Sequential([keras.Input((problems.INPUTS,)), keras.layers.Dense(1)])
    model.compile(optimizer=problems.make(name), loss="mse", jit_compile=False)
    with pytest.raises(RuntimeError, match="Make the model with `keras_es.sparsify"):
        problems.fit(model)


@EVERY
def test_apply_gradients_by_hand_is_refused(name):
    optimizer = problems.make(name, name="mine")
    with pytest.raises(RuntimeError, match="Received: optimizer='mine' used outside"):
        optimizer.apply_gradients([(0.0, keras.Variable(1.0))])


def test_an_optimizer_of_another_compile_is_refused():
    adam = keras.optimizers.Adam()
    problems.bound(SNES(adam))
    with pytest.raises(ValueError, match="already holds the state of other weights"):
        problems.bound(OpenES(adam))


def test_optimizers_of_keras_train_weights_under_fixed_masks():
    model = problems.compiled("sgd")
    (masked,) = keras_es.masked_weights(model)
    before, latent = masked.kernel_mask.numpy(), masked.kernel.numpy()
    problems.fit(model)
    assert (masked.kernel_mask.numpy() == before).all()
    assert (masked.kernel.numpy()[before] != latent[before]).any()
