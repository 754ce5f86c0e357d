"""Which parameters a sweep calls important."""

import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from launch.sweeps.importance import importances

SPACE = {
    "decay": CategoricalDistribution([0.0, 0.1]),
    "rate": FloatDistribution(1e-5, 1e-3, log=True),
    "seed": CategoricalDistribution([1]),
}


def studied(trials: int, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask(SPACE)
        distance = abs(math.log10(trial.params["rate"]) + 4) + 0.1 * trial.params["decay"]
        study.tell(trial, distance if direction == "minimize" else -distance)
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_parameter_that_decides_comes_first_and_one_that_never_varies_not_at_all(direction):
    found = importances(studied(20, direction))
    assert found is not None
    assert list(found) == ["rate", "decay"]
    assert found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_a_failed_trial_counts_for_nothing_and_few_trials_say_nothing():
    study = studied(8)
    assert importances(study) is not None
    before = importances(study)
    study.tell(study.ask(SPACE), state=optuna.trial.TrialState.FAIL)
    assert importances(study) == before
    assert importances(studied(7)) is None
    assert importances(optuna.create_study()) is None
