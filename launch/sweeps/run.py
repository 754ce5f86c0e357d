"""The loop of a sweep: takes up interrupted trials, begins new ones, watches, records."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from optuna.trial import Trial

from cami2v.training.preemption import REQUEUE_EXIT_CODE, StopRequest, StopRequests
from launch.errors import EXIT_CODE
from launch.sweeps.folder import SweepFolder
from launch.sweeps.objective import final_value, series
from launch.sweeps.settings import SweepSettings
from launch.sweeps.space import overrides
from launch.sweeps.study import SweepStudy
from launch.sweeps.trial import TrialRun, Trials

logger = logging.getLogger(__name__)

MAX_STARTS = 50
"""A trial that is preempted at every start ends here."""
_ENDING, _STARTS, _FAILURES, _SECONDS = "ended early", "starts", "failures", "seconds"


@dataclass(slots=True, kw_only=True)
class _Running:
    trial: Trial
    run: TrialRun
    slot: int
    reported: int
    """Last training step whose value the study has."""


class Sweep:
    """One process's work on a sweep; the caller holds the folder's lock."""

    def __init__(self, *, settings: SweepSettings, study: SweepStudy, folder: SweepFolder, trials: Trials) -> None:
        self.settings = settings
        self.study = study
        self.folder = folder
        self.trials = trials
        self._running: dict[int, _Running] = {}
        self._waited_for: set[int] = set()
        self._started = time.monotonic()

    def run(self) -> StopRequest:
        """Work until the budget is spent, or until this process is asked to stop and its trials have saved."""
        requests = StopRequests()
        passed_on = StopRequest.NONE
        with requests.listening():
            while True:
                asked = requests.pending()
                if asked > passed_on:
                    self._leave_trials(asked)
                    passed_on = asked
                for number in list(self._running):
                    self._look_after(number, stopping=bool(asked))
                more = not asked and self._begin()
                if not self._running and not more:
                    return asked
                time.sleep(self.settings.poll_seconds)

    def _begin(self) -> bool:
        """Fill the free places; tell whether there may be more to do."""
        held: set[int] = set()
        while len(self._running) + len(held) < self.settings.parallel:
            waiting = [number for number in self.study.unfinished() if number not in self._running.keys() | held]
            if waiting:
                trial: Trial | None = self.study.again(waiting[0])
            else:
                trial = None if self._out_of_time() else self.study.ask()
            if trial is None:
                return bool(held)
            if not self._start(trial):
                held.add(trial.number)
        return True

    def _out_of_time(self) -> bool:
        hours = self.settings.hours
        return hours is not None and time.monotonic() - self._started > hours * 3600

    def _start(self, trial: Trial) -> bool:
        """Start a trial, or take over the one that runs; false where that is not possible yet."""
        number, slot = trial.number, self._free_slot()
        parameters = self.study.parameters(trial)
        run = self.trials(number, parameters, slot)
        if trial.user_attrs.get(_ENDING):
            run.end()
            self.study.prune(trial)
            return True
        if not run.start():
            if number not in self._waited_for:
                logger.info("trial %d: %s", number, run.obstacle)
            self._waited_for.add(number)
            return False
        starts = max(1, trial.user_attrs.get(_STARTS, 0) + (not run.adopted))
        trial.set_user_attr(_STARTS, starts)
        how = f"found as {run.place}" if run.adopted else "started" if starts == 1 else f"continued (start {starts})"
        logger.info("trial %d %s: %s", number, how, " ".join(overrides(parameters)))
        reported = max(trial.storage.get_trial(trial._trial_id).intermediate_values, default=-1)
        self._running[number] = _Running(trial=trial, run=run, slot=slot, reported=reported)
        return True

    def _free_slot(self) -> int:
        taken = {running.slot for running in self._running.values()}
        return next(slot for slot in range(self.settings.parallel) if slot not in taken)

    def _look_after(self, number: int, *, stopping: bool) -> None:
        running = self._running[number]
        code = running.run.poll()
        self._compare(running, stopping=stopping)
        if code is None:
            return
        del self._running[number]
        trial = running.trial
        spent = trial.user_attrs.get(_SECONDS, 0.0) + running.run.seconds
        trial.set_user_attr(_SECONDS, round(spent, 1))
        if code == 0:
            self._finish(running)
        elif trial.user_attrs.get(_ENDING):
            self.study.prune(trial)
            logger.info("trial %d pruned", number)
        elif stopping:
            logger.info("trial %d interrupted, the same command continues it", number)
        elif code == REQUEUE_EXIT_CODE and trial.user_attrs[_STARTS] < MAX_STARTS:
            logger.info("trial %d was preempted and will be continued", number)
        else:
            self._fail(running, code)
        self.folder.write_tables(self.study)

    def _finish(self, running: _Running) -> None:
        trial = running.trial
        try:
            value = final_value(self.folder.run(trial.number), self.settings.objective)
        except ValueError as error:
            self._record_failure(running, str(error))
            return
        self.study.finish(trial, value)
        key = self.settings.objective.key
        logger.info("trial %d finished: %s %.6g (best %.6g)", trial.number, key, value, self.study.study.best_value)

    def _fail(self, running: _Running, code: int) -> None:
        trial, reason = running.trial, running.run.last_words()
        failures = trial.user_attrs.get(_FAILURES, 0) + 1
        trial.set_user_attr(_FAILURES, failures)
        if code != EXIT_CODE and failures <= self.settings.retries:
            logger.warning("trial %d failed (%s), once more", trial.number, reason)
        else:
            self._record_failure(running, reason)

    def _record_failure(self, running: _Running, reason: str) -> None:
        self.study.fail(running.trial, reason)
        logger.warning("trial %d failed: %s (%s)", running.trial.number, reason, running.run.log)

    def _compare(self, running: _Running, *, stopping: bool) -> None:
        """Hand the study what the trial has logged since, and end the trial if that is bad enough."""
        if self.settings.pruning.kind == "none" or running.trial.user_attrs.get(_ENDING):
            return
        for step, value in series(self.folder.run(running.trial.number), self.settings.pruning_key):
            if step <= running.reported:
                continue
            running.trial.report(value, step)
            running.reported = step
            if not stopping and running.trial.should_prune():
                # Recorded first: a sweep that is killed now must not take the trial up again.
                running.trial.set_user_attr(_ENDING, True)
                logger.info("trial %d: %s %.6g at step %d, ending it", running.trial.number,
                            self.settings.pruning_key, value, step)  # fmt: skip
                running.run.end()
                return

    def _leave_trials(self, asked: StopRequest) -> None:
        """Wait for those that end with this process; the others go on without it."""
        staying = [number for number, running in self._running.items() if not running.run.leave(asked)]
        places = [self._running.pop(number).run.place for number in staying]
        if places:
            logger.info("%s: go on, the same command follows them again", ", ".join(places))
        if self._running:
            logger.info("asked to stop: %d running trials save first", len(self._running))
