"""`UnrolledModel`: a `Task` in Keras's `compile`, `fit`, `evaluate` and `save`."""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution.collectives import is_chosen, replica_index
from keras_es.distribution.trainer import Replicated
from keras_es.unrolled import batches, program, traced
from keras_es.unrolled.calls import Calls, check_evaluate, check_fit
from keras_es.unrolled.estimator import check_estimator, whole
from keras_es.unrolled.evaluation import Evaluation
from keras_es.unrolled.logs import Logs
from keras_es.unrolled.particles import Particles
from keras_es.unrolled.progress import Found, Progress
from keras_es.unrolled.task import check_task, check_weights
from keras_es.unrolled.window import Window


@keras.saving.register_keras_serializable(package="keras_es")
class UnrolledModel(_compat.OwnSteps, Calls, Logs, Replicated, keras.Model):
    """Trains the weights of a `Task` by an online evolution strategy.

    One step of `fit` is one window of every particle and one update of the weights. Its
    logs are the mean `loss` of a step of the members, `episode_loss`, the mean sum of
    losses over episodes that ended, and how many particles were `non_finite`. A mean of
    none is NaN: where all particles were non-finite, or no episode has ended yet.

    Where particles stand is held in variables of the model. `save` keeps it, and a
    loaded model goes on in mid-episode, to the bit. Under a `tf.distribute` strategy
    replicas share the particles, and send each other the gradient only.

    Args:
        task: A `Task`.
        **kwargs: `name` and others of `keras.Model`.

    Raises:
        ValueError: If the task is none, has no horizon, or no weights that are floats
            without regularizers.

    Example: see `Task`.
    """

    def __init__(self, task, **kwargs):
        super().__init__(**kwargs)
        check_task(task)
        self.task = task
        if not task.built:
            task.build()
            task.built = True
        check_weights(task)
        self.particles = Particles(name="particles")
        self._episode_loss = keras.metrics.Mean(name="episode_loss")
        self._non_finite = keras.metrics.Sum(name="non_finite")
        self._rows, self._streams, self._probed = None, False, {}
        self._spec = self._test_spec = None
        self.built = True

    def compile(
        self,
        optimizer,
        *,
        metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
    ):
        """Choose the estimator. Particles begin anew.

        Args:
            optimizer: `NRES`, `GPES`, `PES`, `FullES` or `TruncatedES`.
            metrics: For tasks with outputs (`Recurrent`): Keras metrics, which see the
                outputs of both members of all pairs in training, and those of the
                unperturbed weights in `evaluate`.
            run_eagerly: See Keras.
            steps_per_execution: See Keras; more than 1 saves time where windows take
                less than some milliseconds. Without data they are one program of XLA.
            jit_compile: True, False or "auto": XLA, but for tasks of the host.

        Raises:
            ValueError: If the optimizer is no estimator, if windows do not divide the
                horizon, if replicas do not divide the particles, or if XLA
                is asked for a task of the host.
        """
        replicas = self.distribute_strategy.num_replicas_in_sync
        check_estimator(optimizer, self.task, replicas, jit_compile, run_eagerly)
        steps_per_execution = whole("steps_per_execution", steps_per_execution)
        if jit_compile == "auto":
            jit_compile = not run_eagerly and not self.task.on_host
        replicated = is_chosen(self.distribute_strategy)
        self._jit_compile_members = bool(jit_compile) and replicated
        self.particles.discard()
        self._probed = {}
        super().compile(
            optimizer=optimizer,
            metrics=metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=bool(jit_compile) and not replicated,
            auto_scale_loss=False,
        )
        self._searched = _named(self.trainable_variables)
        with self.distribute_strategy.scope():
            # Not when training begins: a file must hold what is then loaded.
            optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        """Compile from a saved config."""
        config = keras.saving.deserialize_keras_object(config)
        names = "optimizer metrics run_eagerly steps_per_execution jit_compile".split()
        self.compile(**{k: v for k, v in config.items() if k in names})

    @traced.explaining
    def fit(self, x=None, *, epochs=1, steps_per_epoch=None, **kwargs):
        """Train, one window of every particle a step.

        Args:
            x: None, or a `tf.data.Dataset` of batches with leaves [particles * rows,
                unroll_length, ...]: the rows of a particle, one after the other
                in time from batch to batch.
            epochs: See Keras.
            steps_per_epoch: Windows of an epoch; required without data.
            **kwargs: `verbose`, `callbacks`, `validation_data` (a dataset),
                `validation_steps`, `validation_freq`, `initial_epoch`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: If data, task, metrics and estimator do not fit each other, or
                for other arguments of Keras's `fit`.
        """
        if not self.compiled:
            raise ValueError("Call `compile` before `fit`. Received: not compiled")
        check_fit(kwargs)
        if x is None and steps_per_epoch is None:
            raise ValueError(
                "Without data `steps_per_epoch` must say how many windows an epoch "
                "has. Received: steps_per_epoch=None"
            )
        if steps_per_epoch is not None:  # Of 0 Keras would make an endless epoch.
            steps_per_epoch = whole("steps_per_epoch", steps_per_epoch)
        self._prepare(x)
        if x is None:
            x = batches.nothing(self.optimizer.particles)
        spec = batches.element_spec(x) if self._streams else None
        if spec != self._spec:
            self._spec, self.train_function = spec, None
        return super().fit(
            x, epochs=epochs, steps_per_epoch=steps_per_epoch, shuffle=False, **kwargs
        )

    @traced.explaining
    def evaluate(self, x=None, *, steps=None, **kwargs):
        """Return the mean loss of a step under the unperturbed weights.

        Args:
            x: None, or a `tf.data.Dataset` as for `fit`, of any length in time:
                sequences are unrolled from the initial state on.
            steps: Without data: how often as many episodes are unrolled as there
                are particles, at least 1, and 1 by default. The same episodes in each
                call.
            **kwargs: `verbose`, `callbacks`, `return_dict`.

        Returns:
            List or dict, as Keras, of `loss`, `episode_loss` (the mean sum of an
                episode's losses), `non_finite` and metrics. Losses are NaN where those
                of all episodes are non-finite.

        Raises:
            ValueError: If data, task and metrics do not fit each other.
        """
        if not self.compiled:
            raise ValueError("Call `compile` before `evaluate`. Received: not compiled")
        check_evaluate(kwargs)
        self._test_streams = x is not None
        if x is None:
            steps = 1 if steps is None else whole("steps", steps)
            x = batches.indices(self.optimizer.particles, steps)
        self._test_rows = self._probe(x if self._test_streams else None)
        self._test_count = self.optimizer.particles
        replicas = self.distribute_strategy.num_replicas_in_sync
        spec = batches.element_spec(x) if self._test_streams else None
        if spec != self._test_spec:
            # Keras traces other shapes as unknown ones.
            self._test_spec, self.test_function = spec, None
        if self._test_streams:
            self._test_count = batches.sequences_of(spec, self._test_rows, replicas)
            self._build_metrics(spec)
        return super().evaluate(x, steps=steps, **kwargs)

    def make_train_function(self, force=False):
        """Compile what `fit` calls, `steps_per_execution` windows."""
        if self._streams or not self.jit_compile:
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = program.windows(self, self.steps_per_execution)

    def train_step(self, data):
        """Unroll all particles through one window and move the weights."""
        window, data = self._window(), batches.unwrapped(data)
        weights = [tf.convert_to_tensor(v.value) for v in self.trainable_variables]
        rows = batches.by_step(data, window.n, self._rows) if self._streams else None
        before = self.particles.read()

        def run():
            after, found = window.run(weights, before, self._particle(window.n), rows)
            return after.flat(), vars(found)

        after, found = program.called(run, self._jit_compile_members)
        self.particles.write(before.packed(after))
        found = Found(**found)
        # Keras adds the gradients of all replicas; nothing else of a step travels.
        share = [
            tf.cast(g / self.optimizer.particles, w.dtype)
            for g, w in zip(found.gradients, weights)
        ]
        self.optimizer.apply(share, self.trainable_variables)
        return self._logs(found, data, window.copies)

    def test_step(self, data):
        """Unroll episodes, or given sequences, under the unperturbed weights."""
        data, rows, index = batches.unwrapped(data), None, tf.constant(0)
        count = self._test_count // self.distribute_strategy.num_replicas_in_sync
        if self._test_streams:
            rows = batches.by_step(data, count, self._test_rows)
        else:
            index = data[0]
        seed = self.optimizer.seed
        evaluation = Evaluation(self._members, count, self._has_metrics, seed)
        weights = [tf.convert_to_tensor(v.value) for v in self.trainable_variables]
        found = program.called(
            lambda: vars(evaluation.run(weights, self._particle(count), index, rows)),
            self._jit_compile_members,
        )
        return self._logs(Found(**found), data, 1)

    def has_members(self):
        """Tell that the step is one of a population."""
        return True

    def _prepare(self, x):
        """Make the particles for the data, and let them reach their first times."""
        self._streams = x is not None
        self._rows = self._probe(x, self.optimizer.window_length(self.task.horizon))
        if self._streams:
            self._build_metrics(batches.element_spec(x))
        window = self._window()
        shapes = [v.shape for v in self.trainable_variables]
        spec = Progress.spec(
            window.n,
            window.copies,
            shapes if self.optimizer.accumulates else [],
            self._state_spec,
        )
        self.particles.hold(spec, self.distribute_strategy, window.length)
        if not self.particles.begun:
            if window.burn_in and not self.optimizer.locked:
                self._burn(window)
            self.particles.begin()

    def _probe(self, x, length=None):
        """Trace the task for its mistakes and specs; return the rows of a particle."""
        rows, spec = None, None
        if x is not None:
            spec = batches.element_spec(x)
            rows = self.task.rows
            if rows is None or length is not None:
                rows = batches.rows_of(spec, self.optimizer.particles, length, rows)
            spec = batches.step_spec(spec, rows)
        # To trace takes longer than many a call of `fit`.
        found = self._probed.get(str(spec))
        if found is None:
            members = self.task.members(self.trainable_variables)
            found = members, members.probe(spec)
        self._check_searched()
        self._members, self._state_spec = found
        self._check_metrics(spec)
        self._probed[str(spec)] = found
        return rows

    def _check_searched(self):
        """Raise a ValueError if the weights are others than `compile` saw."""
        before, after = self._searched, _named(self.trainable_variables)
        if before != after:
            raise ValueError(
                "The trainable weights are others than when `compile` was called. "
                "Make those of layers in `build` of the task, by `layer.build(shape)`, "
                "and `compile` again after `trainable` was changed. Received: "
                f"{[path for _, path in after]}, before {[path for _, path in before]}"
            )

    def _window(self):
        estimator = self.optimizer
        replicas = self.distribute_strategy.num_replicas_in_sync
        burn_in = estimator.burn_in
        if burn_in and self._streams:
            raise ValueError(
                "There is no burn-in with data, whose windows it would use up. Leave "
                f"`burn_in` out. Received: burn_in={burn_in!r}"
            )
        if burn_in is None:
            burn_in = not self._streams
        return Window(
            self._members,
            estimator,
            estimator.particles // replicas,
            burn_in,
            outputs=self._streams and self._has_metrics,
        )

    def _particle(self, count):
        """Return the numbers of this replica's particles, int32 [count]."""
        return replica_index() * count + tf.range(count)

    def _burn(self, window):
        def run():
            weights = [tf.convert_to_tensor(v.value) for v in self.trainable_variables]
            before, particle = self.particles.read(), self._particle(window.n)
            flat = program.called(
                lambda: window.burn(weights, before, particle).flat(),
                self.compiled_by_xla,
            )
            self.particles.write(before.packed(flat))

        # Under a strategy replicas run within a function, eagerly they are slow.
        tf.function(lambda: self.distribute_strategy.run(run), autograph=False)()

    def get_config(self):
        """Return the task's config."""
        task = keras.saving.serialize_keras_object(self.task)
        return {"task": task, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the model from `get_config()`."""
        config = dict(config)
        config["task"] = keras.saving.deserialize_keras_object(
            config["task"], custom_objects=custom_objects
        )
        return cls(**config)


def _named(variables):
    """Return (id, path) of each: variables themselves Keras would count as others."""
    return tuple((id(v), v.path) for v in variables)
