"""One training step: ask, evaluate members, tell."""

import tensorflow as tf

from keras_es.distribution.collectives import (
    assign_all,
    mean_over_replicas,
    when,
    when_all,
)
from keras_es.optimizers.arguments import refuse_other_model
from keras_es.populations.evaluation import Evaluation
from keras_es.populations.model_state import frozen_masks
from keras_es.training.compilation import Parts
from keras_es.training.logs import nan_of_nothing, population_logs


class Step:
    """One training step of a model whose optimizer is a `MaskOptimizer`.

    Args:
        model: Compiled `ESModel`.
        jit_compile: Whether to compile the parts with XLA.
    """

    def __init__(self, model, jit_compile):
        self.model, self.optimizer = model, model.optimizer
        self.parts = Parts(jit_compile, self.optimizer.compiled_together)
        self.alone = self.parts.alone

    def run(self, x, y, sample_weight):
        """Run the step on a batch and return the logs."""
        refuse_other_model(self.optimizer, self.model)
        turns = self.optimizer.taking_turns
        if turns is not None and turns.held:
            when(turns.draw_is_due, lambda: turns.hold(self.parts.rare(turns.draw)))
        if self.optimizer.judges and not self.optimizer.search.is_empty:
            due = self.optimizer.judgement_is_due
            when_all(due, self._judge, x, y, sample_weight)
        # Without a strategy, members, updates and logs are one program.
        logs, ok, guidance = self.parts.all_in_one(
            lambda: self._learn(x, y, sample_weight)
        )
        if turns is not None:
            when_all(
                lambda: turns.are_over, lambda: self.parts.rare_within(self._end_turns)
            )
        if self.optimizer.scheduled:
            when_all(self.optimizer.move_is_due, self._move, guidance, ok)
        frozen = frozen_masks(self.model, self.optimizer.masked_weights)
        return {**logs, **self.optimizer.step_logs(frozen)}

    def _learn(self, x, y, sample_weight):
        """Evaluate members and move weights; move masks if no turns are taken."""
        population = self.optimizer.population(self.model, x, y, sample_weight)
        evaluate = population.evaluate
        mine = evaluate() if self.parts.together else self._compiled(evaluate)
        result = mine.over_replicas()
        ok = tf.reduce_any(result.valid)
        self.optimizer.update_weights(
            result.gradients, population.variables, result.active, ok
        )
        assign_all(zip(population.touched, result.state))
        for variable, value in zip(population.metrics, result.metrics):
            variable.assign(value)
        self.optimizer.count_step(result.valid, ok)
        turns = self.optimizer.taking_turns
        if turns is None:
            told = result if self.optimizer.ranked_together else mine
            guidance = self._guidance(mine)
            self.parts.within(
                lambda: self._tell(told.fitness, told.valid, guidance, ok)
            )
        else:
            turns.collect(result.fitness, result.valid, mine.guidance)
        # What moves masks leaves the program, for the move is a branch outside of it.
        kept = mine.guidance if self.optimizer.scheduled else None
        metrics = self.model.get_metrics_result()
        if not self.alone:  # A replica knows its own part only.
            metrics = nan_of_nothing(self.model, metrics, unless=ok)
        logs = {**metrics, **population_logs(result.fitness, result.valid)}
        return logs, ok, kept or []

    def _judge(self, *batch):
        """Judge members on a batch that weights have not been trained on yet."""
        judged = self.parts.rare(lambda: self.optimizer.judged(self.model, *batch))
        self.parts.rare_within(lambda: self.optimizer.move_criterion(*judged))

    def _move(self, guidance, ok):
        guidance = mean_over_replicas(guidance)
        self.parts.rare_within(lambda: self.optimizer.move_masks(guidance, ok))

    def _compiled(self, evaluate):
        # A compiled function returns tensors and structures of them, no objects.
        return Evaluation(**self.parts.compiled(lambda: dict(vars(evaluate()))))

    def _guidance(self, mine):
        if mine.guidance is None or not self.optimizer.ranked_together:
            return mine.guidance
        return mean_over_replicas(mine.guidance)

    def _end_turns(self):
        turns = self.optimizer.taking_turns
        ok = tf.reduce_any(turns.evaluations.value > 0.0)
        fitness, valid = turns.fitness()
        self._tell(fitness, valid, turns.mean_guidance(), ok)

    def _tell(self, fitness, valid, guidance, ok):
        """Move scores and masks by what a generation found."""
        self.optimizer.learn(fitness, valid, guidance, ok, self.parts.compiled)
