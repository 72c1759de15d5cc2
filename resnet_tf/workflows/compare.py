"""Comparison of a new model with the one in use, as a gate for its release."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.config import parse_assignments
from resnet_tf.config.effects import check_data_keys
from resnet_tf.core import files
from resnet_tf.core.class_names import canonical, find_indices
from resnet_tf.core.comparison import Answers, Comparison, Gate, check_gates, check_limits
from resnet_tf.core.errors import UserError
from resnet_tf.core.machine import describe
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.multi_label_comparison import MultiLabelComparison
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.core.paths import user_path
from resnet_tf.core.prediction_files import PredictionsFile, read_predictions
from resnet_tf.core.progress_line import Progress
from resnet_tf.core.targets import targets_of
from resnet_tf.data import pipeline
from resnet_tf.data.groups import all_groups, check_column_names
from resnet_tf.data.sources import Source, Split
from resnet_tf.inputs import Preprocess
from resnet_tf.report.comparison_page import write_comparison
from resnet_tf.serving.predictor import Predictor
from resnet_tf.serving.runners import keras_logits
from resnet_tf.serving.speed import measure_in_turns
from resnet_tf.training.evaluation import evaluate_run
from resnet_tf.training.run import Run
from resnet_tf.workflows.evaluate import EvaluateResult, check_checkpoint, check_held_out, evaluate, load_subject

_BATCH_SIZES = (1, 16)  # of latencies
_SECONDS = 3.0  # of the calls for each of them

Model = Run | Predictor


@dataclass(frozen=True, repr=False)
class CompareResult:
    """Outcome of `compare`.

    Attributes:
        comparison: numbers of both models; its text is what `resnet-tf compare` prints.
        gates: the stated gates, each met or not.
        split: the evaluated split.
        preprocess: preprocessing that resizes images for the page.
    """

    comparison: Comparison
    gates: tuple[Gate, ...]
    split: Split
    preprocess: Preprocess

    @property
    def failures(self) -> list[Gate]:
        """Gates that are not met."""
        return [gate for gate in self.gates if not gate.passed]

    def write_report(self, directory: str | Path) -> Path:
        """Write a page with the numbers, plots and negative flips, `index.html`, to `directory`, and return its path.

        Raises:
            UserError: if `directory` cannot be written.
        """
        load = functools.partial(pipeline.load_plots, self.split, self.preprocess)
        return write_comparison(user_path(directory), self.comparison, self.gates, load, environment=describe())

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, the gates, and the location of each negative flip, ready for JSON."""
        flips = self.comparison.negative_flips
        return {
            **self.comparison.to_dict(),
            "gates": [dataclasses.asdict(gate) for gate in self.gates],
            "passed": not self.failures,
            "flips": [{**self.split.locate(int(index)), **self._describe_flip(index)} for index in flips],
        }

    def _describe_flip(self, index: int) -> dict[str, str]:
        known = self.comparison
        old, new = (known.name_prediction(each, index) for each in known.answers)
        return {"class": known.name_target(index), "old": old, "new": new}

    def __repr__(self) -> str:
        paired = self.comparison.paired
        names = f"{self.comparison.old.name!r}, {self.comparison.new.name!r}"
        return f"CompareResult({names}, difference={paired.difference:+.4f}, failures={len(self.failures)})"


def compare(
    old: Model | str | Path,
    new: Model | str | Path,
    *,
    data: str | Path = "",
    overrides: Sequence[str] = (),
    checkpoint: str = "",
    by: Sequence[str] = (),
    columns: Mapping[str, Sequence[str]] | None = None,
    latency: bool = True,
    max_accuracy_drop: float | None = None,
    max_negative_flips: int | None = None,
    max_latency_ratio: float | None = None,
    min_class_recall: float | None = None,
) -> CompareResult:
    """Compare two models on the evaluation split of the old one, and check the stated gates.

        result = resnet_tf.compare("export/serving/1", "export/serving/2", max_accuracy_drop=0.01)
        print(result.comparison, result.failures, result.write_report("page/"))

    Args:
        old: the model in use: an export, a run, their directory, or a file of predictions, as `predict --json` or
            `predict --csv` prints them.
        new: its replacement. At least one of both must be a model.
        data: another data set, see `evaluate`.
        overrides: further changes of the `data` group, see `evaluate`.
        checkpoint: of run directories, see `load_run`.
        by: columns of the table that the data come from, to slice by.
        columns: further properties to slice by: name -> one value for each example of the split, in its order.
        latency: measure the latency of both models on this machine, in turns.
        max_accuracy_drop: gate: largest loss of accuracy, fraction in [0, 1].
        max_negative_flips: gate: largest number of examples that were right and are wrong now.
        max_latency_ratio: gate: largest latency for one example, relative to the old model.
        min_class_recall: gate: smallest recall of any class with the new model, fraction in [0, 1].

    Raises:
        UserError: for a missing or corrupt model, other classes, data that cannot be read, or a gate that cannot be
            measured.
    """
    limits = {
        "max_accuracy_drop": max_accuracy_drop,
        "max_negative_flips": max_negative_flips,
        "max_latency_ratio": max_latency_ratio,
        "min_class_recall": min_class_recall,
    }
    check_limits(limits)
    overrides = tuple(overrides)  # read twice
    check_data_keys(parse_assignments(overrides), "compare")
    check_checkpoint(checkpoint, old, new)
    subjects = [_load(each, checkpoint) for each in (old, new)]
    models = [each for each in subjects if not isinstance(each, PredictionsFile)]
    if not models:
        raise UserError("two files of predictions: one of both must be a run or an exported model, which has the data")
    if max_latency_ratio is not None and (len(models) < 2 or not latency):
        raise UserError("a gate for the latency needs two models whose latency is measured")
    check_column_names([*by, *(columns or {})], models[0].preprocess)  # before the evaluation
    if repeated := set(by) & set(columns or {}):
        raise UserError(f"column {min(repeated)!r} is in both by and columns; give one of them another name")
    result = evaluate(models[0], data=data, overrides=overrides)
    columns = {**{name: result.source.validation.column(name) for name in by}, **(columns or {})}
    comparison = _compare(subjects, models, result, columns)
    if len(models) == 2 and latency:
        comparison = _with_latencies(comparison, models)
    gates = tuple(check_gates(comparison, **limits))
    return CompareResult(comparison, gates, result.source.validation, models[0].preprocess)


def _compare(
    subjects: Sequence[Model | PredictionsFile],
    models: Sequence[Model],
    result: EvaluateResult,
    columns: Mapping[str, Sequence[str]],
) -> Comparison:
    """Return the comparison of two subjects on the data on which `result` evaluated the first model."""
    split, labels = result.source.validation, result.subject.labels
    known = set(map(canonical, labels))
    names = [*labels, *(name for model in models for name in model.labels if canonical(name) not in known)]
    is_multi_label = split.labels.ndim > 1
    if is_multi_label:
        _check_multi_label(subjects, names)
    old, new = (_answer(each, result, names) for each in subjects)
    return (MultiLabelComparison if is_multi_label else Comparison)(
        data=f"{result.source.name}, split {split.name!r}",
        old=old,
        new=new,
        targets=split.labels,
        class_names=names,
        groups=all_groups(split, models[0].preprocess, names, columns),
    )


def _load(subject: Model | str | Path, checkpoint: str) -> Model | PredictionsFile:
    if not isinstance(subject, Run | Predictor) and user_path(subject).is_file():
        return read_predictions(subject)
    return load_subject(subject, checkpoint)


def _answer(subject: Model | PredictionsFile, result: EvaluateResult, names: list[str]) -> Answers:
    """Return the answers of a model or of a file for the evaluated split; `names` are those of all classes."""
    split = result.source.validation
    if isinstance(subject, PredictionsFile):
        predictions, confidence = subject.find(_files(split, result.source.name), names)
        return Answers(str(subject.path), "", predictions, confidence)
    evaluation = result.evaluation if subject is result.subject else _evaluate(subject, result.source)
    indices = {canonical(name): index for index, name in enumerate(names)}
    common = np.array([indices[canonical(label)] for label in subject.labels])
    check = check_held_out(subject, evaluation, result.settings)
    held_out = evaluation if check is None else check.after
    if isinstance(evaluation, MultiLabelEvaluation):
        chosen: Any = (slice(None), np.argsort(common))  # the columns by the common names
        predictions = evaluation.selected[chosen]
    else:
        best = evaluation.logits.argmax(axis=1)
        chosen, predictions = (np.arange(len(best)), best), common[best]
    return Answers(
        name=str(_path(subject)),
        description=_description(subject),
        predictions=predictions,
        confidence=evaluation.probabilities[chosen],
        held_out_confidence=held_out.probabilities[chosen],
        logits=evaluation.logits[chosen] if isinstance(evaluation, MultiLabelEvaluation) else None,
        loss=evaluation.loss,
        preprocess=subject.preprocess.to_dict(),
        parameters=subject.model.count_params() if isinstance(subject, Run) else subject.metadata["parameters"],
        bytes=None if isinstance(subject, Run) else files.total_size(subject.path),
    )


def _evaluate(model: Model, source: Source) -> Evaluation:
    """Evaluate a model on a source with the classes of another model, in any order."""
    indices = np.array(find_indices(source.class_names, model.labels))
    split = source.validation
    targets = targets_of(split.labels)
    present = targets.present(split.labels)
    if (missing := present[indices[present] < 0]).size:
        name = source.class_names[missing[0]]
        raise UserError(f"{str(_path(model))!r} has no class {name!r}, which the data have")
    labels = targets.renumber(split.labels, indices, len(model.labels))
    split = dataclasses.replace(split, labels=labels)
    if isinstance(model, Predictor):
        return model.evaluate(split)
    return evaluate_run(model, Source(source.name, model.labels, split, split), batch_size=model.config.data.batch_size)


def _check_multi_label(subjects: Sequence[Model | PredictionsFile], names: Sequence[str]) -> None:
    """Refuse a file of predictions, which has no probabilities of all classes, and models with different classes."""
    for each in subjects:
        if isinstance(each, PredictionsFile):
            raise UserError(
                f"{str(each.path)!r} has no probabilities of all classes: multi-label models are compared as "
                "runs or exports"
            )
        if len(each.labels) != len(names):
            missing = next(name for name in names if canonical(name) not in set(map(canonical, each.labels)))
            raise UserError(f"{str(_path(each))!r} has no class {missing!r}; both models need the same classes")


def _files(split: Split, name: str) -> list[str]:
    locations = [split.locate(index) for index in range(split.num_examples)]
    if any(set(each) != {"file"} for each in locations):
        raise UserError(f"predictions are matched by file, but a file of {name!r} holds several examples: give models")
    return [each["file"] for each in locations]


def _with_latencies(comparison: Comparison, models: Sequence[Model]) -> Comparison:
    functions = [(_logits(model), model.preprocess) for model in models]
    with Progress("measuring latencies"):
        taken = {size: measure_in_turns(functions, size, seconds=_SECONDS) for size in _BATCH_SIZES}
    old, new = (
        dataclasses.replace(each, milliseconds={size: values[index] for size, values in taken.items()})
        for index, each in enumerate(comparison.answers)
    )
    return dataclasses.replace(comparison, old=old, new=new)


def _logits(model: Model) -> Callable[[np.ndarray], Any]:
    return model.logits if isinstance(model, Predictor) else keras_logits(model.model, model.preprocess)


def _path(model: Model) -> Path:
    return model.path if isinstance(model, Predictor) else model.workdir


def _description(model: Model) -> str:
    if isinstance(model, Run):
        return f"{model.model.name}, run, step {model.step:,}"
    known = model.metadata
    return f"{known['model']}, {known['target']}, {known['precision']}"
