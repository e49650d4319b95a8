"""What is evolved: data, network, strategy and target of each suite."""

import dataclasses

import models
from benchmarks.pure import networks


@dataclasses.dataclass(frozen=True)
class Suite:
    """One result.

    Attributes:
        dataset: Name of the data set.
        network: Function (input_shape, num_classes) -> plain Keras model.
        methods: Dict from a name for `strategy` or "evosax" (its Open_ES) to what was
            chosen on the validation split: `population`, `batch_size`, and what
            `strategy` or `benchmarks.pure.peer` reads; `generations` if others than
            those of the suite.
        generations: Of each run.
        target: Test accuracy that is wanted.
        tried: Dict from a method to the changes of its settings that `--tune` tries,
            all with the same number of evaluated examples.
    """

    dataset: str
    network: object
    methods: dict
    generations: int
    target: float | None = None
    tried: dict = dataclasses.field(default_factory=dict)


def _sizes(population, generations):
    """32 examples for each member."""
    return {"population": population, "generations": generations}


def strategy(method, config, generations, seed):
    """Return the strategy of a run, rates and sigma on their schedules.

    Args:
        method: "open_es" or "snes", or with `as_shipped` a name in `optimizers.PURE`.
        config: Dict: `as_shipped` for the method's own defaults; or `population`,
            `sigma`; for OpenES `end_sigma` (share of it that is left at the end) and
            `learning_rate`, for SNES `mean_learning_rate`, which fall to 0 along a
            cosine; optionally `output_sigma`, `layerwise`, `rank` (of the noise) and
            `sampled_examples`.
        generations: Number of generations.
        seed: Seed of the noise.
    """
    import keras

    from keras_es import optimizers
    from keras_es.noise import Full, Layerwise, LowRank, Outputs

    if config.get("as_shipped"):
        return optimizers.PURE[method](None, seed=seed)
    schedules = keras.optimizers.schedules
    common = {"population_size": config["population"], "seed": seed}
    if "sampled_examples" in config:
        common["batch_mode"] = optimizers.Sampled(config["sampled_examples"])
    common["noise"] = LowRank(config["rank"]) if "rank" in config else Full()
    if "output_sigma" in config:
        common["noise"] = Outputs(config["output_sigma"], common["noise"])
    if config.get("layerwise"):
        common["noise"] = Layerwise(common["noise"])
    if method == "snes":
        rate = schedules.CosineDecay(config["mean_learning_rate"], generations)
        common |= {k: config[k] for k in ("sigma", "std_learning_rate") if k in config}
        return optimizers.SNES(None, mean_learning_rate=rate, **common)
    adam = keras.optimizers.Adam(
        schedules.CosineDecay(config["learning_rate"], generations),
        beta_1=config.get("beta_1", 0.9),
    )
    sigma = schedules.CosineDecay(
        config["sigma"], generations, alpha=config.get("end_sigma", 1.0)
    )
    return optimizers.OpenES(
        None,
        sigma=sigma,
        mean_optimizer=adam,
        **common,
    )


SUITES = {
    "binary": Suite(
        "mnist",
        networks.binary,
        {
            "open_es": {
                "population": 128, "batch_size": 32, "learning_rate": 0.05,
                "sigma": 0.3, "output_sigma": 0.5,
            }
        },
        generations=4000,
        target=0.93,
    ),
    "mnist-11k": Suite(
        "mnist",
        models.ARCHITECTURES["mnist_11k"].build,
        {
            "open_es": {
                "population": 128, "batch_size": 1024, "sampled_examples": 32,
                "learning_rate": 0.01, "sigma": 0.05, "output_sigma": 0.3,
                "layerwise": True, "rank": 1,
            }
        },
        generations=5000,
        target=0.98,
    ),
    "strategies": Suite(
        "mnist",
        models.ARCHITECTURES["mnist_11k"].build,
        {
            **{
                name: {"as_shipped": True, "population": 256, "batch_size": 32}
                for name in (
                    "open_es", "snes", "pgpe", "sep_cma_es", "genetic_algorithm"
                )
            },
            # As many evaluated examples: two members a generation.
            "alopex": {
                "as_shipped": True, "population": 2, "batch_size": 256,
                "generations": 3200,
            },
        },
        generations=200,
    ),
    "cifar": Suite(
        "cifar10",
        networks.cifar_patches,
        {
            "open_es": {
                "population": 32, "batch_size": 32, "learning_rate": 0.003,
                "sigma": 0.005, "output_sigma": 0.03,
            },
            "evosax": {
                "population": 32, "batch_size": 32, "learning_rate": 0.01,
                "sigma": 0.02,
            },
        },
        generations=640,
        tried={
            "open_es": [
                _sizes(64, 320),
                {"learning_rate": 0.006, **_sizes(64, 320)},
                {"output_sigma": 0.1, **_sizes(64, 320)},
                {},
                _sizes(16, 1280),
            ],
            "evosax": [
                _sizes(256, 80),
                {"learning_rate": 0.03, **_sizes(256, 80)},
                {"sigma": 0.05, **_sizes(256, 80)},
                _sizes(64, 320),
                {},
            ],
        },
    ),
    "mnist-30k": Suite(
        "mnist",
        models.ARCHITECTURES["mnist_30k"].build,
        {
            "snes": {
                "population": 128, "batch_size": 1024, "sampled_examples": 32,
                "mean_learning_rate": 6.0, "sigma": 0.05, "output_sigma": 0.3,
                "layerwise": True,
            }
        },
        generations=2000,
        target=0.98,
    ),
}  # fmt: skip
