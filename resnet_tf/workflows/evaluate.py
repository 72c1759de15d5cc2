"""Evaluation of runs and exported models."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_tf.config import CONFIG_FILE, DataConfig, override, parse_assignments
from resnet_tf.config.effects import check_data_keys, check_effects
from resnet_tf.core.calibration_check import CalibrationCheck, check_if_calibrated
from resnet_tf.core.errors import UserError
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.out_of_distribution import OutOfDistribution, separate
from resnet_tf.core.paths import source_text, user_path
from resnet_tf.core.robustness import Robustness
from resnet_tf.data.robustness import check_corruptible, measure_robustness
from resnet_tf.data.sources import Source, match_classes, open_source, slices
from resnet_tf.data.sources.overlaps import describe_evaluation
from resnet_tf.serving.predictor import Predictor
from resnet_tf.serving.runners import keras_logits
from resnet_tf.training.evaluation import evaluate_run, read_test_metrics
from resnet_tf.training.measurements import warning_if_unwritable, write_measurement
from resnet_tf.training.run import REPORT, Run, load_run
from resnet_tf.workflows.reporting import write_export_report, write_run_report

logger = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class EvaluateResult:
    """Outcome of `evaluate`.

    Attributes:
        subject: the run or the export that was evaluated.
        evaluation: its metrics.
        source: the data set; the training split of data that is not the run's is the evaluated one.
        class_names: names of the classes, in the order of the logits.
        calibration: probabilities before and after calibration; None for a model without it.
        out_of_distribution: separation from another data set; None without `ood`.
        report_directory: the `report` directory of a run that was evaluated as it was trained; None for other data, for
            `flip`, and for exports.
        settings: the `data` group of the evaluation.
        robustness: metrics on corrupted images, if they were measured.
    """

    subject: Run | Predictor
    evaluation: Evaluation
    source: Source
    class_names: tuple[str, ...]
    calibration: CalibrationCheck | None
    out_of_distribution: OutOfDistribution | None
    report_directory: Path | None
    settings: DataConfig
    robustness: Robustness | None = None

    def write_report(self, directory: str | Path) -> Path:
        """Write a page with metrics, plots and mistakes, `index.html`, to `directory`, and return its path.

        Raises:
            UserError: if `directory` cannot be written.
        """
        path, run = user_path(directory), self.subject
        if not isinstance(run, Run):
            return write_export_report(
                path, run, self.evaluation, self.source, calibration=self.calibration, robustness=self.robustness
            )
        is_own = self.report_directory is not None  # the measurements of the run are of its own data
        return write_run_report(
            path,
            run,
            self.evaluation,
            self.source,
            test_metrics=read_test_metrics(run) if is_own else None,
            calibration=self.calibration,
            robustness=self.robustness or (run.robustness if is_own else None),
            serving=run.serving if is_own else None,
        )

    def to_dict(self, *, classes: bool = False) -> dict[str, Any]:
        """Return the metrics as plain numbers; with `classes`, also `recall` of each class and `confusion`.

        With a calibration, there are also its metrics, see `CalibrationCheck.to_dict`, and its temperature, of several
        ones the geometric mean. `ood` and `robustness` have the metrics of `out_of_distribution` and `robustness`,
        unless these are None.
        """
        metrics = self.evaluation.to_dict()
        if self.calibration:
            known = self.evaluation.calibration
            metrics |= self.calibration.to_dict() | {"cross_fitted": self.calibration.cross_fitted}
            metrics |= {"temperature": known.temperature}
            metrics |= {} if known.threshold is None else {"threshold": known.threshold}
        if self.out_of_distribution:
            metrics["ood"] = self.out_of_distribution.to_dict()
        if self.robustness:
            metrics["robustness"] = self.robustness.to_dict()
        return metrics | (self.evaluation.classes(self.class_names) if classes else {})

    def __repr__(self) -> str:
        return f"EvaluateResult({self.subject!r}, {self.evaluation!r}, data={self.source.name!r})"


def evaluate(
    run_or_export: Run | Predictor | str | Path,
    *,
    data: str | Path = "",
    overrides: Sequence[str] = (),
    checkpoint: str = "",
    flip: bool = False,
    ood: str | Path = "",
    corruptions: bool = False,
) -> EvaluateResult:
    """Evaluate a run or an exported model on its evaluation split; every example counts once.

        result = resnet_tf.evaluate("runs/photos", data="other_photos/")
        print(result.evaluation.top(1), result.write_report("page/"))

    Args:
        run_or_export: a run, its directory, a predictor, or the directory of an export.
        data: another data set, as in `data.source`; a `Path` of a file or folder is never the name of a data set. Empty
            is that of the run; the export of a bare model needs it. Of other data, the complete evaluation split is
            evaluated, and all images of a folder of class/file.
        overrides: further changes of the `data` group, such as `data.eval_split=val`; for a folder of class/file,
            `data.eval_split=test` is the part that a training would not use.
        checkpoint: for a run directory, see `load_run`.
        flip: average the logits of each image and of its mirror image; for runs only.
        ood: out-of-distribution data set, whose images show none of the classes, as in `data.source`:
            `out_of_distribution` states how well the energy separates both.
        corruptions: also evaluate on the images with each of 15 common corruptions in five severities, as described in
            docs/trust.md. For a run on its own data, the metrics are stored in `robustness.json` of its directory, and
            its next exports have them in their model cards.

    Raises:
        UserError: if there is neither a run nor an export, it is corrupt, or the data has other classes; for the export
            of a bare model without data; for a checkpoint of anything but a run directory; for corruptions of other
            examples than images, or together with `flip`.
    """
    check_checkpoint(checkpoint, run_or_export)
    subject = load_subject(run_or_export, checkpoint)
    changes = parse_assignments([*overrides, *([f"data.source={source_text(data)}"] if data else [])])
    own = _own_data(subject)
    if isinstance(subject, Predictor) and own is None and "data.source" not in changes:
        raise UserError(
            f"the metadata of {str(subject.path)!r} name no data; give --data=..., or --set data.source=... to compare"
        )
    config = override(subject.config, {"data.test_split": "", **changes})  # which an evaluation leaves alone
    check_data_keys(changes, "evaluate")
    check_effects(config, changes)
    settings = config.data
    if flip and not isinstance(subject, Run):
        raise UserError("flip averages the logits of a run; an exported model answers as it was exported")
    if corruptions:
        if flip:
            raise UserError("corruptions are measured without flip")
        check_corruptible(subject.preprocess)
    is_other = _is_other(own, settings)
    whole = is_other and "data.eval_split" not in changes
    if is_other:
        settings = _settings_of_other(settings, changes)
    opened = open_source(settings, for_training=False, whole=whole, given=changes)
    source = match_classes(subject.labels, opened, subject.data_classes if isinstance(subject, Run) else ())
    for text in describe_evaluation(source.validation, source.class_names):
        logger.warning("%s", text)
    directory = None
    if isinstance(subject, Run):
        evaluation = evaluate_run(subject, source, batch_size=settings.batch_size, flip=flip)
        directory = None if changes or flip else subject.workdir / REPORT
    else:
        evaluation = subject.evaluate(source.validation)
    check = check_held_out(subject, evaluation, settings)
    separation = _separate(subject, evaluation, ood, flip) if ood else None
    robustness = _measure_robustness(subject, source, evaluation) if corruptions else None
    if robustness and directory and isinstance(subject, Run):
        with warning_if_unwritable("the metrics on corrupted images"):
            write_measurement(subject.workdir, subject.identity, robustness)
    return EvaluateResult(
        subject, evaluation, source, subject.labels, check, separation, directory, settings, robustness
    )


def check_held_out(subject: Run | Predictor, evaluation: Evaluation, settings: DataConfig) -> CalibrationCheck | None:
    """Return the calibration of an evaluation on data that did not fit it, None without one.

    A cross-fit replaces the calibration if `settings` name the data that fitted it.
    """
    fitted = subject.config.data.eval_split
    is_fitted = not _is_other(_own_data(subject), settings) and _overlap(fitted, settings.eval_split)
    return check_if_calibrated(evaluation, cross_fitted=is_fitted)


def _settings_of_other(settings: DataConfig, changes: Mapping[str, Any]) -> DataConfig:
    """Return the settings of another data set, which need not have the other splits of the run."""
    whole = "data.eval_split" not in changes
    eval_split = slices.without_parts(settings.eval_split) if whole else settings.eval_split
    train_split = settings.train_split if "data.train_split" in changes else eval_split
    settings = dataclasses.replace(settings, train_split=train_split, eval_split=eval_split, test_split="")
    if "data.image_folder" not in changes:
        settings = dataclasses.replace(settings, image_folder="")  # that of another table
    return settings


def _overlap(fitted: str, evaluated: str) -> bool:
    """Return True if two splits of the same data may have common examples, as parts of one split do."""
    first, second = ({slices.plain_name(term) for term in slices.terms(split)} for split in (fitted, evaluated))
    return bool(first & second) or slices.ALL in first | second


def _separate(subject: Run | Predictor, evaluation: Evaluation, data: str | Path, flip: bool) -> OutOfDistribution:
    """Return the separation from another data set, evaluated as the own one; its labels do not matter."""
    changes = parse_assignments([f"data.source={source_text(data)}"])
    settings = override(subject.config, changes).data
    if not _is_other(_own_data(subject), settings):
        raise UserError(f"--ood={data} is the data set of the model; name an out-of-distribution data set")
    source = open_source(_settings_of_other(settings, changes), for_training=False, whole=True, given=changes)
    shape = (source.validation.num_examples, *evaluation.targets.shape[1:])
    split = dataclasses.replace(source.validation, labels=np.zeros(shape, evaluation.targets.dtype))
    if isinstance(subject, Run):
        unlabeled = Source(source.name, subject.labels, split, split)
        other = evaluate_run(subject, unlabeled, batch_size=subject.config.data.batch_size, flip=flip)
    else:
        other = subject.evaluate(split)
    return separate(evaluation.energy, other.energy, f"{source.name}, split {split.name!r}")


def _measure_robustness(subject: Run | Predictor, source: Source, clean: Evaluation) -> Robustness:
    logits = subject.logits if isinstance(subject, Predictor) else keras_logits(subject.model, subject.preprocess)
    return measure_robustness(logits, source.validation, subject.preprocess, clean, thresholds=subject.thresholds)


def _own_data(subject: Run | Predictor) -> DataConfig | None:
    """Return the data that a model was trained on; None for the export of a bare model, whose metadata name none."""
    if isinstance(subject, Predictor) and "config" not in subject.metadata:
        return None
    return subject.config.data


def _is_other(trained: DataConfig | None, evaluated: DataConfig) -> bool:
    """Return True if the evaluated data are not those of the training, as far as these are known."""
    return trained is None or _identify(trained.source) != _identify(evaluated.source)


def _identify(source: str) -> str:
    """Return a text that two paths of the same data have in common; the name `digits` is not the folder `./digits`."""
    return source if source == "digits" else os.path.realpath(user_path(source))


def check_checkpoint(checkpoint: str, *subjects: Any) -> None:
    """Refuse the choice of a checkpoint if no subject is a run directory, which alone has several.

    Raises:
        UserError: naming the checkpoint.
    """
    if checkpoint and not any(map(_is_run_directory, subjects)):
        raise UserError(f"checkpoint={checkpoint} needs a run directory; an export or a loaded run has one checkpoint")


def _is_run_directory(subject: Any) -> bool:
    return isinstance(subject, str | os.PathLike) and (user_path(subject) / CONFIG_FILE).is_file()


def load_subject(run_or_export: Run | Predictor | str | Path, checkpoint: str) -> Run | Predictor:
    """Return a run or an exported model, loaded unless it is already; see `evaluate`."""
    if isinstance(run_or_export, Run | Predictor):
        return run_or_export
    if _is_run_directory(run_or_export):
        return load_run(run_or_export, checkpoint=checkpoint)
    if not user_path(run_or_export).is_dir():
        raise UserError(f"there is neither a run nor an exported model at {str(run_or_export)!r}")
    return Predictor(run_or_export)
