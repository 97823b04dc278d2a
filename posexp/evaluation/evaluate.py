"""The command posexp eval: one row per run, protocol and length."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from posexp.config.commands import EvalCommand
from posexp.config.sections import AttentionPath
from posexp.evaluation import losses
from posexp.evaluation.interfaces import Subject, View
from posexp.evaluation.key_tokens import self_chosen
from posexp.evaluation.logged import logged_rows
from posexp.evaluation.losses import Losses
from posexp.evaluation.plan import (
    PROTOCOLS,
    announcement,
    check_protocols,
    own_lengths,
    plan,
    shuffled_beyond,
    stands,
)
from posexp.evaluation.rows import KEY, Row, read_rows, sums_of
from posexp.evaluation.run_model import Trained
from posexp.evaluation.scoring import Cost, Scorer, Scores, is_out_of_memory, measured
from posexp.evaluation.statistics import summarize
from posexp.evaluation.targets import Measurement, documents_of, targets_hash, targets_of
from posexp.evaluation.variants import Variant, without_effect
from posexp.model import cpu
from posexp.model.device import choose_device, choose_precision, describe
from posexp.output.console import progress, say
from posexp.runs.experiment import Experiment
from posexp.runs.load import finished_runs, for_each
from posexp.runs.logger import logged_run
from posexp.runs.loggers import Loggers, check_loggers
from posexp.runs.run import Run
from posexp.storage import jsonl
from posexp.storage.locks import LockHeld
from posexp.transforms import NotApplicable


def evaluate(command: EvalCommand) -> list[Run]:
    """Measure every finished run that `command` names, and return these runs.

    Rows that exist already are reused. Several processes may evaluate at once: each measures whole runs, skips the
    runs that another process has locked, and waits for the skipped runs at the end.

    Raises Misuse if there is no such run or no run can be measured as requested; RunFailed if some runs failed.
    """
    check_loggers(command.loggers)
    check_protocols(command.eval.get("protocols") or [])
    device = choose_device(command.device)
    cpu.prepare()
    finished = finished_runs(command.results, command.group, command.runs)
    skipped: set[Run] = set()
    announced: set[str] = set()
    bar = progress("", 0, "%", runs=len(finished))

    def work(run: Run) -> None:
        try:
            evaluate_run(Experiment(run, device, command.cache, command.trust), command, run in skipped, announced, bar)
        except LockHeld:
            skipped.add(run)
            raise

    for_each(finished, work, "evaluated")
    return finished


def evaluate_run(
    experiment: Experiment,
    command: EvalCommand,
    waits: bool = True,
    announced: set[str] | None = None,
    bar: progress | None = None,
) -> None:
    """Append the missing rows to the run's rows.jsonl. Raises LockHeld if it is locked, unless it `waits`."""
    with experiment.run.measuring(waiting_for(experiment.run) if waits else None):
        subject = Trained(experiment, command)
        evaluate_subject(subject, command, experiment.device, announced, bar, experiment.loggers)


def waiting_for(run: Run) -> Callable[[str], None]:
    return lambda who: say(f"{run.name}: waiting for {who}, which measures this run")


def evaluate_subject(
    subject: Subject,
    command: EvalCommand,
    device: torch.device,
    announced: set[str] | None = None,
    bar: progress | None = None,
    loggers: Loggers | None = None,
) -> None:
    """Measure, append and log the rows that a model lacks. `announced` holds the lines that are printed already."""
    run, announced = subject.run, set() if announced is None else announced
    evaluator = Evaluator(subject, device, bar)
    notes = [*evaluator.warnings(), *(f"{run.name}: {note}" for note in subject.notes())]
    for line in [*announcement(evaluator.tokens, evaluator.config, evaluator.lengths), *notes]:
        if line not in announced:
            say(line)
        announced.add(line)
    requested = subject.variants(command)
    key = (*KEY, "kernel_path") if subject.eval.attention is not AttentionPath.auto else KEY
    known = read_rows(run, say)
    done = {row.key(key) for row in known if stands(row)}
    todo: list[Job] = []
    refused: list[NotApplicable] = []
    for variant in requested:
        try:
            jobs = evaluator.jobs(variant)
        except NotApplicable as error:
            refused.append(NotApplicable(f"transform {variant.name} does not apply: {error}"))
            continue
        todo += [job for job in jobs if job.row.key(key) not in done]
    new = []
    with evaluator.bar:
        for row in evaluator.rows(sorted(todo, key=evaluator.place)):
            jsonl.append(run.rows, row.values())
            new.append(row)
            if not PROTOCOLS[row.protocol].drawn_only:
                say(row.line())
    if new:
        for line in without_effect([*known, *new], new):
            say(f"{run.name}: {line}")
        found = logged_rows([*known, *new], subject.eval)
        with loggers or Loggers(command.loggers, command.wandb, partial(logged_run, run, "eval")) as copies:
            copies.evaluation(found)
    elif len(refused) < len(requested) - 1 or len(requested) == 1:
        say(f"{run.name}: all {', '.join(map(str, evaluator.lengths))} measured already")
    if refused and len(refused) == len(command.transform):
        raise refused[0]
    for refusal in refused:
        say(f"{run.name}: {refusal}")


@dataclass
class Job:
    """A row to measure, with the columns that are known beforehand."""

    measurement: Measurement
    variant: Variant  # the variant that the row reports
    seen: Variant  # the variant that runs: for the control "window", with its window cut
    row: Row
    read: int  # tokens; 0 if the model has no position for the longest input


class Evaluator:
    """A model and the text it is measured on. `bar` counts the tokens that are read in all runs of a command."""

    def __init__(self, subject: Subject, device: torch.device, bar: progress | None = None):
        self.subject, self.config, self.device = subject, subject.eval, device
        self.bar = bar or progress("", 0, "%")
        self.precision = choose_precision(self.config.precision, device)
        self.tokens = subject.tokens
        self.token_bytes, self.byte_count = self.tokens.token_bytes()
        self.lengths = own_lengths(self.tokens, subject.train_length, self.config)
        self.latest: tuple[tuple[object, ...], Scores] | None = None  # scores of the latest spans, by model and text

    @cached_property
    def plan(self) -> list[Measurement]:
        return plan(self.tokens, self.config, self.lengths, self.subject.train_length)

    def warnings(self) -> list[str]:
        """Return a line if the bytes of single targets are estimated, and one if the model chose the targets itself."""
        how = {
            "scaled": "the tokens do not add up to the text, so the bytes of each token are scaled",
            "mean": "the tokenizer has no decoder, so each token counts as the mean of the split",
        }
        lines = self_chosen(self.plan, self.subject.run.name, self.subject.about["weights"])
        return lines + ([f"bits per byte: {how[self.byte_count]}"] if self.byte_count in how else [])

    def jobs(self, variant: Variant) -> list[Job]:
        """Return a job for every row of a variant. Raises NotApplicable if the variant cannot change the model."""
        found = []
        for measurement in self.plan:
            seen: Variant | None = variant
            if measurement.control and variant.transform is not None:
                continue  # with a transform, the cropped row is the only control
            if measurement.control == "window":
                seen = self.subject.cut(variant)
            if seen is not None:
                view = self.subject.view(seen, measurement.inputs)
                row = self.describe(measurement, variant, view)
                if measurement.control:
                    row = replace(row, control_of=self.subject.view(variant, measurement.inputs).window)
                defined = view.max_length is None or measurement.inputs <= view.max_length
                found.append(Job(measurement, variant, seen, row, measurement.read if defined else 0))
        return found

    def describe(self, measurement: Measurement, variant: Variant, view: View) -> Row:
        """Return the row before the model runs, without losses and intervals."""
        tokens = measurement.tokens or self.tokens
        target_N, context_N = targets_of(measurement.windows)
        hash_ = targets_hash(tokens, target_N, measurement.by)
        target_N, context_N = target_N[measurement.chosen], context_N[measurement.chosen]
        document_N = documents_of(tokens, target_N)
        begin_N = target_N - context_N + (tokens.bos is not None)  # first text token that the model reads
        trained = {} if measurement.trained is None else {"train_length": measurement.trained}
        return Row(
            **self.subject.about | trained,
            length=measurement.length,
            protocol=measurement.protocol,
            stride=measurement.stride,
            window=view.window,
            transform=variant.name,
            control=measurement.control,
            targets=len(target_N),
            targets_hash=hash_,
            crossing_share=float((begin_N < tokens.starts[document_N]).mean()),
            kernel_path=view.kernel_path,
            status="undefined",
            transform_settings=view.settings,
            split=self.config.split.value if len(self.subject.store.meta["splits"]) > 1 else "all",
            documents=len(np.unique(document_N)),
            documents_in_split=len(tokens.starts) - 1,
            precision=self.precision.value,
            device=describe(self.device),
            matmul=cpu.matmul(),
            primary=self.config.primary,
            chosen_by=measurement.chosen_by(self.subject.about["weights"]),
        )

    def place(self, job: Job) -> int:
        """Return the place of a job's spans in the plan, so that jobs on the same spans can share scores."""
        return [id(measurement.windows) for measurement in self.plan].index(id(job.measurement.windows))

    def rows(self, jobs: list[Job]) -> Iterator[Row]:
        """Yield the row of each job as soon as it is computed."""
        spans = {self.scored(job): job.read for job in jobs if job.read}  # of jobs that share scores, one reads
        self.bar.begin_run(sum(spans.values()))
        for job in jobs:
            end = self.bar.done + spans.pop(self.scored(job), 0)
            yield replace(job.row, **self.measure(job))
            self.bar.skip(end - self.bar.done)  # not 0 if memory ran out

    def scored(self, job: Job) -> tuple[object, ...]:
        """Return a key that jobs with the same scores share."""
        transform, measurement = job.seen.transform, job.measurement
        same = transform is None or transform.unchanged(measurement.inputs)
        return "" if same else job.row.transform_settings, job.row.window, job.row.control, id(measurement.windows)

    def score(self, job: Job, view: View) -> tuple[Scores, Cost | None]:
        """Return the scores of a job's targets and their cost, None if the job before it has scored the same spans."""
        measurement, key = job.measurement, self.scored(job)
        if self.latest is not None and self.latest[0] == key:
            return self.latest[1], None
        self.latest = None  # free its memory
        torch.manual_seed(0)  # random schemes draw the same positions in every evaluation
        tokens = measurement.tokens or self.tokens
        self.bar.at(f"{self.subject.run.name}: {measurement.protocol} {measurement.length}")
        change = shuffled_beyond(self.subject.train_length) if measurement.control == "shuffled" else None
        how = (self.config.batch_tokens, self.device, self.precision, change, tokens.bos)
        with measured(self.device) as cost:
            found = Scorer(view.model, *how, self.bar.advance)(tokens.ids, measurement.windows)
        self.latest = key, found
        return found, cost

    def measure(self, job: Job) -> dict[str, Any]:
        """Return the remaining columns: metrics of the losses, or a status that says why there are none."""
        measurement = job.measurement
        view = self.subject.view(job.seen, measurement.inputs)
        if not job.read:
            return {}  # the status stays "undefined"
        try:
            scores, cost = self.score(job, view)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return {"status": "out of memory"}
        per_second = None if cost is None else round(measurement.read / cost.seconds)
        speed = {} if cost is None else {"tokens_per_second": per_second, "peak_memory": cost.peak_memory}
        tokens = measurement.tokens or self.tokens
        target_N, context_N = targets_of(measurement.windows)
        document_N = documents_of(tokens, target_N)
        about_N = measurement.chosen
        nll_N, document_N, hit_N = scores.nll[about_N], document_N[about_N], scores.hit[about_N]
        if not PROTOCOLS[measurement.protocol].drawn_only:
            context_N = context_N[about_N].astype(np.int32)
            kept = Losses(nll_N, target_N[about_N], context_N, document_N.astype(np.int32), hit_N)
            losses.keep(self.subject.run.folder, job.row, kept)
        if not np.isfinite(nll_N).all():
            return {"status": "non-finite", **speed}
        sums = sums_of(nll_N, document_N) if PROTOCOLS[measurement.protocol].summed else None
        bytes_ = float(self.token_bytes[tokens.ids[target_N[about_N]]].sum()) if tokens.bytes else None
        summary = summarize(nll_N, document_N, bytes_, measurement.weights()[about_N])
        found = {**vars(summary), "accuracy": float(hit_N.mean()), **speed, "document_sums": sums, "status": "ok"}
        if bytes_:
            found["byte_count"] = self.byte_count
        if (best_N := measurement.optimum(tokens)) is not None:
            found |= {"optimum": float(best_N.mean()), "optimum_sums": sums and sums_of(best_N, document_N)}
        if measurement.task:
            wrong_D = np.bincount(document_N, weights=~hit_N)
            found["exact_match"] = float((wrong_D[np.unique(document_N)] == 0).mean())
        return found
