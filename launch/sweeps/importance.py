"""Which parameters decide whether a trial is among the good ones."""

from __future__ import annotations

import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

LEAST_TRIALS = 8
"""Finished ones, below which every answer is chance."""
_GOOD_TRIALS = 5
"""At least so many count as good, and from 50 trials on the best tenth."""


def importances(study: optuna.Study) -> dict[str, float] | None:
    """Return each parameter's share, largest first; they add up to 1. None where too few trials have finished.

    PED-ANOVA (Watanabe et al., IJCAI 2023), Optuna's own: how far values of good trials differ from those of all.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < LEAST_TRIALS or len({trial.value for trial in finished}) < 2:
        return None
    varied = [key for key, distribution in finished[0].distributions.items() if not distribution.single()]
    if not varied:
        return None
    share = max(0.1, min(0.5, _GOOD_TRIALS / len(finished)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
        return get_param_importances(study, evaluator=evaluator, params=varied)
