"""Report pages of runs and exports."""

import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_tf.config import Config
from resnet_tf.core.calibration_check import CalibrationCheck
from resnet_tf.core.machine import describe
from resnet_tf.core.metrics import Evaluation
from resnet_tf.core.robustness import Robustness
from resnet_tf.core.serving_benchmark import ServingBenchmark
from resnet_tf.data import pipeline
from resnet_tf.data.sources import Source
from resnet_tf.inputs import Preprocess
from resnet_tf.report.page import Report, write_page
from resnet_tf.serving.predictor import Predictor
from resnet_tf.training.run import Run, read_metrics

# The first of these that the metrics of a test split have is shown.
_TEST_METRICS = {"test_mean_average_precision": "test mean average precision", "test_top1": "test top-1"}


def write_run_report(
    directory: Path,
    run: Run,
    evaluation: Evaluation,
    source: Source,
    *,
    test_metrics: Mapping[str, float] | None = None,
    calibration: CalibrationCheck | None = None,
    robustness: Robustness | None = None,
    serving: ServingBenchmark | None = None,
) -> Path:
    """Write the page of a run, and return the path of `index.html`.

    Args:
        directory: where the page is written.
        run: see `load_run`.
        evaluation: of the run, on the validation split of `source`.
        source: a data set with the classes of the run.
        test_metrics: see `evaluate_test_split`; shown if not empty.
        calibration: probabilities before and after calibration; None without calibration.
        robustness: of the run, on the same split; shown if it was measured.
        serving: speed of its exports; shown if it was measured.

    Raises:
        UserError: if `directory` cannot be written.
    """
    metrics = read_metrics(run.workdir)
    facts = {}
    if test_metrics:
        name, title = next(each for each in _TEST_METRICS.items() if each[0] in test_metrics)
        facts[title] = f"{100 * test_metrics[name]:.2f} %"
        facts["test examples"] = f"{test_metrics['test_examples']:,}"
    if run.stopped_epoch:
        facts["stopped early (epoch)"] = f"{run.stopped_epoch} of {run.config.train.epochs}"
    facts["parameters"] = f"{run.model.count_params():,}"
    if metrics:
        rate = statistics.median(line["images_per_second"] for line in metrics)
        minutes = sum(line["train_seconds"] for line in metrics) / 60
        facts |= {"training speed (examples/s)": f"{rate:,.0f}", "training time (minutes)": f"{minutes:,.1f}"}
    return _write(
        directory,
        network=run.config.model.name,
        evaluation=evaluation,
        source=source,
        preprocess=run.preprocess,
        config=run.config,
        facts=facts,
        calibration=calibration,
        robustness=robustness,
        metrics=metrics,
        serving=serving,
    )


def write_export_report(
    directory: Path,
    predictor: Predictor,
    evaluation: Evaluation,
    source: Source,
    *,
    calibration: CalibrationCheck | None,
    robustness: Robustness | None,
) -> Path:
    """Write the report page of an exported model, as `write_run_report` does."""
    known = predictor.metadata
    return _write(
        directory,
        network=known["model"],
        evaluation=evaluation,
        source=source,
        preprocess=predictor.preprocess,
        config=predictor.config if "config" in known else None,
        facts={"parameters": f"{known['parameters']:,}", "export": f"{known['target']}, {known['precision']}"},
        calibration=calibration,
        robustness=robustness,
    )


def _write(
    directory: Path,
    *,
    network: str,
    evaluation: Evaluation,
    source: Source,
    preprocess: Preprocess,
    config: Config | None,
    facts: dict[str, str],
    calibration: CalibrationCheck | None,
    robustness: Robustness | None,
    metrics: Sequence[dict[str, Any]] = (),
    serving: ServingBenchmark | None = None,
) -> Path:
    report = Report(
        title=f"{network} on {source.name}",
        evaluation=evaluation,
        class_names=source.class_names,
        load_images=functools.partial(pipeline.load_plots, source.validation, preprocess),
        metrics=metrics,
        train_counts=source.class_counts,
        calibration=calibration,
        facts=facts,
        config=config.to_json() if config else "",
        environment=describe(),
        robustness=robustness,
        serving=serving,
    )
    return write_page(directory, report)
