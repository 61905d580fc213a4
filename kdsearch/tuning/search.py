"""Run a search, new or resumed, from its configuration to its leaderboard."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from kdsearch.analysis.leaderboard import best_record
from kdsearch.config.dimensions import Value
from kdsearch.config.space_file import Config
from kdsearch.data import cache_dir, load_dataset
from kdsearch.data.beats import Dataset
from kdsearch.errors import ConfigError, RunError, StorageFailed
from kdsearch.evaluation.costs import StudentCosts, by_name
from kdsearch.evaluation.verdict import Results
from kdsearch.files.bucket import parse_path
from kdsearch.files.cache import CACHE_VARIABLE, why_unwritable
from kdsearch.methods.device import resolve_device, resolve_precision
from kdsearch.methods.protocol import Compute, Task
from kdsearch.runs.folder import RunFolder
from kdsearch.runs.learned import Learned
from kdsearch.runs.stop_requests import PAUSED, Paused, StopRequests
from kdsearch.runs.study import CostOf, Study, sound, trials_in_all
from kdsearch.runs.study_view import StudyView
from kdsearch.runs.trial_folder import TrialRecord
from kdsearch.teachers.existing import Source, content_of, read_sources, realise
from kdsearch.texts import printable, redact
from kdsearch.tuning import cluster
from kdsearch.tuning.confirm import (
    Candidate,
    ConfirmationInputs,
    candidates,
    confirm,
    left_to_confirm,
    seeds,
)
from kdsearch.tuning.earlier_runs import learn_from
from kdsearch.tuning.finish import missing_results, write_leaderboard, write_results
from kdsearch.tuning.ledger import Ledger, Observer
from kdsearch.tuning.live_report import LiveReport
from kdsearch.tuning.memory_needed import check_memory
from kdsearch.tuning.notebook import notebook_table
from kdsearch.tuning.placement import (
    Placement,
    check_cluster,
    local_cpus,
    plan_placement,
    trial_compute,
    wait_for_room,
)
from kdsearch.tuning.progress import (
    SearchProgress,
    confirmation_progress,
    duration,
)
from kdsearch.tuning.request import Request, check_resume
from kdsearch.tuning.rungs import Rungs
from kdsearch.tuning.signals import Signals
from kdsearch.tuning.teacher import (
    Teacher,
    TeacherCache,
    describe_teacher,
    existing_teacher,
    read_teacher,
)
from kdsearch.tuning.teacher_training import TeacherTraining
from kdsearch.tuning.temporary import remove_abandoned
from kdsearch.tuning.trackers import Observers, Tracker, Tracking, open_trackers, register_best
from kdsearch.tuning.tune import StudyScheduler, StudySearcher, run_tune
from kdsearch.tuning.workers.stack_size import describe_sizes
from kdsearch.tuning.workers.trial import TrialInputs, trial_seed

logger = logging.getLogger(__name__)


def search(request: Request) -> list[TrialRecord]:
    """Run or resume a search until it holds ``num_samples`` trials.

    Returns:
        The record of every trial.

    Raises:
        UserError: An error that the user can fix, before anything is trained.
        SearchFailed: Every trial failed, or the teacher diverged.
        StorageFailed: A disk is full or fails.
        Interrupted: A signal came; finished trials are saved.
    """
    folder = request.folder
    check_resume(request)
    if request.address is None:
        # Report what this machine lacks before a teacher is trained on it.
        local_cpus(request.config)
        check_memory(request.config)
        cluster.temporary_parent()
    signals = Signals()
    with (
        folder.lock(partial(_say, request.console)),
        signals.caught(),
        _logging_to(folder.log_file),
        ExitStack() as at_end,
    ):
        # Again: another driver may have started a search here before this one had the lock.
        check_resume(request)
        remove_abandoned(folder)
        try:
            return _Search(request, signals, at_end).run()
        except OSError as error:
            text = f"{error.filename or folder.path}: {error.strerror or error}"
            raise StorageFailed(text) from error


class _Search:
    def __init__(
        self,
        request: Request,
        signals: Signals,
        at_end: ExitStack,
    ) -> None:
        self._signals = signals
        self._at_end = at_end
        self._config = request.config
        self._folder = request.folder
        self._console = request.console
        self._request = request
        self._requests = StopRequests(request.folder)
        self._trackers: list[Tracker] = []
        self._progress: SearchProgress | None = None

    def run(self) -> list[TrialRecord]:
        records = read_trials(self._folder, self._config, self._say)
        self._check_numbers(records)
        learned = self._learned()
        view = StudyView(
            self._folder,
            self._config.space,
            self._say,
            self._request.optuna_storage,
            self._config.search.metric,
        )
        view.open(records)
        self._at_end.callback(view.close)
        if self._complete(records):
            return records
        sources = self._sources()
        if self._request.address is not None and (
            self._trials_left(records)
            or self._confirmations_left(records)
            or read_teacher(self._folder) is None
        ):
            # Before anything is cut or trained: the cluster may not be there.
            joined = cluster.joined(self._request.address, self._config, self._signals)
            self._at_end.enter_context(joined)
            cluster.probe_storage(self._folder.path)
            check_cluster(self._config)
        self._trackers = open_trackers(self._request.track, self._folder, self._config)
        if unwritable := why_unwritable(cache_dir()):
            self._say(
                f"nothing is kept in the cache: {unwritable}; choose another folder with "
                f"{CACHE_VARIABLE}"
            )
        dataset = load_dataset(self._config.data, cache_dir())
        for line in (dataset.description, *dataset.notes):
            self._say(line)
        self._check_data(dataset)
        self._folder.write_config(self._config.as_dict(), self._request.overrides)
        self._folder.begin_work()
        self._requests.forget_pause()
        compute = resolve_driver_compute(self._request)
        teacher = self._teacher(dataset, compute, sources)
        inputs = self._inputs(dataset, teacher, compute)
        if self._trials_left(records) or self._confirmations_left(records, dataset):
            with (
                self._cluster(inputs) as (on_cluster, placement),
                closing(LiveReport(self._folder, records)) as live,
            ):
                views = Observers(view, live)
                self._run_trials(records, learned, views, on_cluster, placement)
                records = sound_records(self._folder, self._config)
                try:
                    self._confirm(records, dataset, on_cluster, placement, live)
                except Paused as paused:
                    self._say(f"{paused}; rerun with --resume")
                    return records
        write_leaderboard(self._folder, records, self._config)
        if left := self._trials_left(records):
            budget = self._config.search.time_budget_s
            if self._requests.search_paused():
                self._say(PAUSED)
            elif budget is not None and self._progress is not None:
                self._say(self._progress.within(budget))
            self._say(f"{left} trials are left; rerun with --resume")
            return records
        write_results(
            self._folder,
            records,
            self._candidates(records),
            dataset,
            teacher,
            inputs,
            self._say,
        )
        register_best(self._folder, self._trackers, self._say)
        self._folder.end_work()
        return records

    def _check_numbers(self, records: Sequence[TrialRecord]) -> None:
        total = self._total(records)
        if records and records[-1].number >= total:
            raise ConfigError(
                f"{self._folder.path} has a trial {records[-1].number}, more than "
                f"this search asks for: trials 0 to {total - 1}"
            )

    def _learned(self) -> list[Learned]:
        """What the sampler learns from earlier runs: as it was at the start of this search."""
        learned = self._folder.read_learned()
        if learned is None:
            paths = self._config.search.learn_from
            learned = [learn_from(path, self._config) for path in paths]
            if learned:
                self._folder.write_learned(learned)
        for earlier in learned:
            self._say(str(earlier))
        return learned

    def _complete(self, records: Sequence[TrialRecord]) -> bool:
        """Return whether nothing is left to do, and say what was lost of a finished search."""
        if self._trials_left(records) or not self._folder.concluded:
            return False
        confirmations = self._confirmations_left(records)
        missing = missing_results(
            self._folder,
            self._config,
            self._total(records),
            # Nothing is lost of a verdict for which there has been no training yet.
            confirmed=bool(self._candidates(records)) and not confirmations,
        )
        path, total = self._folder.path, self._total(records)
        if write_leaderboard(self._folder, records, self._config):
            self._say(f"{self._folder.leaderboard_file}: missing or damaged, and made again")
        if missing:
            self._say(f"{path}: {', '.join(missing)}: missing or damaged, and made again")
        elif not confirmations:
            self._say(f"{path}: complete with {total} trials; nothing to do")
        return not missing and not confirmations

    def _check_data(self, dataset: Dataset) -> None:
        """Check that the data, which may have moved, have not changed."""
        known = self._teacher_description().get("data", {}).get("fingerprint")
        if known not in (None, dataset.fingerprint):
            raise RunError(
                f"{self._folder.path} holds a search over other data (fingerprint "
                f"{known[:12]}, found {dataset.fingerprint[:12]}): give it its own --data, or "
                "choose another --name"
            )

    def _teacher_description(self) -> dict[str, Any]:
        """Return ``teacher.json``; empty where it is missing or damaged."""
        try:
            return self._folder.read_derived(self._folder.teacher_file)
        except RunError:
            return {}

    def _sources(self) -> list[Source]:
        """Teachers that exist, read and checked; empty where the run keeps its teacher.

        Raises:
            RunError: The run was started with another teacher.
        """
        if not self._config.teacher_source.exists:
            return []
        stored = read_teacher(self._folder)
        if stored is None:
            return read_sources(self._config)
        paths = [parse_path(path) for path in self._config.teacher_source.paths]
        if paths and not self._config.foreign and all(path.exists() for path in paths):
            found = content_of(read_sources(self._config))
            known = (stored.origin or {}).get("content", found)
            if found != known:
                raise RunError(
                    f"{self._folder.path} holds a search with another teacher (content "
                    f"{known:.12}, found {found:.12}): resume it with its own, or choose "
                    "another --name"
                )
        return []

    def _teacher(
        self, dataset: Dataset, compute: Compute, sources: Sequence[Source]
    ) -> Teacher:
        """The run's own teacher, or one that exists, or the cache's; the run keeps a copy."""
        stored = read_teacher(self._folder)
        if stored is not None:
            return stored
        if sources:
            found = realise(sources, self._config, dataset, compute, cache_dir())
            teacher = existing_teacher(found)
            came, note = f"({found.origin['kind']})", found.origin["note"]
            detail = f"; {note}" if note else ""
        else:
            training = TeacherTraining(
                self._config, dataset, compute, self._signals, self._console, self._say
            )
            teacher = training.run(on_cluster=self._request.address is not None)
            trained = f"trained in {duration(teacher.seconds)}"
            came = "found in the cache" if teacher.found else trained
            detail = f" at epoch {teacher.best.epoch}"
        self._say(
            f"teacher {teacher.fingerprint[:12]} {came}: val_auc {teacher.best.val_auc:.4f}"
            f"{detail}"
        )
        # A run whose own copy was lost continues with the same teacher or not at all.
        known = self._teacher_description().get("fingerprint")
        if known not in (None, teacher.fingerprint):
            raise RunError(
                f"{self._folder.teacher_weights}: lost or damaged, and this machine's teacher "
                f"is another one (fingerprint {known:.12}, here {teacher.fingerprint:.12})"
            )
        self._folder.write_teacher(teacher.weights, describe_teacher(teacher, dataset))
        return teacher

    def _trials_left(self, records: Sequence[TrialRecord]) -> int:
        return self._total(records) - sum(r.finished for r in records)

    def _total(self, records: Sequence[TrialRecord]) -> int:
        return trials_in_all(self._config.search.num_samples, self._config.points, records)

    @contextmanager
    def _cluster(self, inputs: TrialInputs) -> Iterator[tuple[TrialInputs, Placement]]:
        """Ray, and the inputs as the machines that it found will use them."""
        with ExitStack() as ray:
            if self._request.address is None:
                data, targets = inputs.task.data, inputs.task.targets
                shared = [data.train, data.validation.x, *targets.values()]
                local = cluster.started(
                    self._config,
                    data_bytes=sum(array.nbytes for array in shared),
                    folder=self._folder,
                    signals=self._signals,
                )
                ray.enter_context(local)
            compute = trial_compute(self._config, self._say)
            inputs = replace(inputs, task=replace(inputs.task, compute=compute))
            placement, measured = plan_placement(inputs, self._say)
            if measured:
                self._say(describe_sizes(measured, placement.main.students))
            yield inputs, placement

    def _run_trials(
        self,
        earlier: list[TrialRecord],
        learned: list[Learned],
        views: Observers,
        inputs: TrialInputs,
        placement: Placement,
    ) -> None:
        trials = self._trials_left(earlier)
        if trials == 0:
            return
        total = self._total(earlier)
        progress = SearchProgress(self._console, total, earlier, self._config.search.metric)
        tracking = Tracking(self._folder, self._trackers, self._say)
        tables = [notebook_table(self._folder)] if progress.in_notebook else []
        observers = Observers(progress, tracking, views, *tables)
        cost_of = self._cost_of(inputs)
        if self._config.search.costs and learned:
            # Kept, since a time that is measured again after a resume is another one.
            learned = [earlier.with_costs(cost_of) for earlier in learned]
            self._folder.write_learned(learned)
        searcher, scheduler = open_trials(
            self._folder,
            self._config,
            earlier,
            observers,
            self._requests,
            learned,
            cost_of,
        )
        if self._config.search.sampler == "auto":
            self._say(
                f"search.sampler: auto picks {searcher.sampler} for this space and budget"
            )
        self._progress = progress
        with progress.shown(), closing(tracking), ExitStack() as shown:
            for table in tables:
                shown.callback(table.close)
            run_tune(
                inputs,
                placement,
                searcher,
                scheduler,
                trials=trials,
                scratch=self._folder.scratch.resolve(),
                signals=self._signals,
                requests=self._requests,
            )

    def _cost_of(self, inputs: TrialInputs) -> CostOf:
        """What scoring costs, by a student's searched values.

        Raises:
            ConfigError: Not even the smallest students keep a limit.
        """
        timed = "microseconds" in self._config.search.costs
        measured = StudentCosts(self._config.method, inputs.task, timed=timed)

        def cost_of(params: Mapping[str, Value]) -> dict[str, float]:
            found = by_name(measured(self._config.student_settings(params)))
            return {name: found[name] for name in self._config.search.costs}

        for name, limit in self._config.search.constraints.items():
            smallest = min(cost_of(point)[name] for point in self._config.corners())
            if smallest > limit.max:
                raise ConfigError(
                    f"{self._config.origin}: search.constraints.{name}: max={limit.max:g}, but "
                    f"the smallest student of this space has {smallest:g}"
                )
        return cost_of

    def _candidates(self, records: Sequence[TrialRecord]) -> list[Candidate]:
        """What is to be confirmed: nothing while trials are left, or where none is wanted."""
        if (
            self._trials_left(records)
            or self._config.confirm.top == 0
            or best_record(records) is None
        ):
            return []
        return candidates(self._config, records)

    def _confirmations_left(
        self, records: Sequence[TrialRecord], dataset: Dataset | None = None
    ) -> int:
        """How many networks are to be trained next; without the beats, at least."""
        results = None
        if dataset is not None:
            beats = dataset.training.validation, dataset.test
            results = Results(self._folder, seeds(self._config), *beats)
        chosen = self._candidates(records)
        return len(left_to_confirm(self._folder, chosen, self._config, results))

    def _confirm(
        self,
        records: Sequence[TrialRecord],
        dataset: Dataset,
        inputs: TrialInputs,
        placement: Placement,
        live: LiveReport,
    ) -> None:
        chosen = self._candidates(records)
        if not self._confirmations_left(records, dataset):
            return
        # Another job may have taken the room that the trials have left.
        wait_for_room(placement.main.cpus, placement.main.gpus, self._say)
        with confirmation_progress(self._console) as show:

            def on_done(said: str, done: int, total: int) -> None:
                show(said, done, total)
                live.confirmed()

            confirm(
                self._folder,
                chosen,
                ConfirmationInputs(inputs, dataset.test),
                placement=placement,
                on_done=on_done,
                check=self._check,
            )

    def _check(self) -> None:
        """Raise an exception if a signal has come, or a pause is requested."""
        self._signals.check()
        self._requests.check()

    def _inputs(self, dataset: Dataset, teacher: Teacher, compute: Compute) -> TrialInputs:
        students = [self._config.student_settings(p) for p in self._config.corners()]
        task = Task(dataset.training, compute, teacher.weights)
        targets = TeacherCache(cache_dir()).targets(
            teacher, self._config.method, students, task
        )
        return TrialInputs(
            config=self._config,
            run=self._folder.path.resolve(),
            generation=self._folder.generation,
            task=replace(task, targets=targets),
            threads=self._config.resources.cpus_per_trial,
        )

    def _say(self, text: str) -> None:
        _say(self._console, text)


def _say(console: Console, text: str) -> None:
    text = printable(redact(text))
    logger.info(text)
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def sound_records(folder: RunFolder, config: Config) -> list[TrialRecord]:
    """Return the record of each trial; one that contradicts the space is unfinished."""
    return [sound(record, config.space) for record in folder.records(config.search.metric)]


def read_trials(
    folder: RunFolder, config: Config, say: Callable[[str], None]
) -> list[TrialRecord]:
    """Return the record of each trial; a damaged one with the settings of its checkpoint."""
    records = sound_records(folder, config)
    for index, record in enumerate(records):
        if record.finished or not record.reason:
            continue
        trial, restored = folder.trial(record.number), record
        params = None if record.params else trial.checkpoint_params()
        if params is not None:
            restored = sound(replace(record, params=params, reason=""), config.space)
        how = "is trained again" if restored.reason else "continues from its checkpoint"
        say(f"{trial.path}: {record.reason}; trial {record.number} {how}")
        records[index] = restored
    return records


def open_trials(
    folder: RunFolder,
    config: Config,
    records: Sequence[TrialRecord],
    observer: Observer,
    requests: StopRequests,
    learned: Sequence[Learned] = (),
    cost_of: CostOf = lambda _: {},
) -> tuple[StudySearcher, StudyScheduler]:
    """Return what suggests and what stops trials, with the history of earlier drivers."""
    settings = config.search
    study = Study(config.space, settings, records, learned, cost_of)
    unfinished = [study.take(number) for number in study.unfinished()]
    ledger = Ledger(
        study,
        folder,
        observer,
        records=records,
        keep_weights=max(settings.keep_weights, config.confirm.top),
        seed_of=partial(trial_seed, config),
    )
    rungs = None
    if config.scheduler.name == "asha":
        rungs = Rungs(config.scheduler, config.max_epochs(), settings.cost_objectives)
        rungs.refill(r for r in records if r.finished or not r.reason)
    searcher = StudySearcher(ledger, unfinished, config.trials, retries=settings.retries)
    return searcher, StudyScheduler(ledger, rungs, requests)


def resolve_driver_compute(request: Request) -> Compute:
    """What this machine computes on: the teacher, unless that trains on a cluster, its scores.

    On a cluster ``cuda`` is asked of the nodes; the driver's machine need not have a GPU.
    """
    resources, on_cluster = request.config.resources, request.address is not None
    anywhere = on_cluster and resources.device == "cuda"
    device = resolve_device("auto" if anywhere else resources.device)
    return Compute(device, resolve_precision(resources.precision, device))


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Everything that is logged goes to a file in the run folder, nothing to the terminal.

    Passwords are hidden, for every logger and handler.
    """
    make = logging.getLogRecordFactory()

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            # Every handler takes this text in place of the traceback.
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return record

    root = logging.getLogger()
    level, complaining = root.level, logging.raiseExceptions
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # A log that cannot be written (a full disk) must not spill tracebacks over the terminal.
    logging.raiseExceptions = False
    logging.setLogRecordFactory(redacted)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
        root.removeHandler(handler)
        root.setLevel(level)
        logging.raiseExceptions = complaining
        handler.close()
