"""Benchmark of the exports of a run, of a network with random weights, or of one export that exists."""

import functools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from resnet_tf.config import CONFIG_FILE, Config, ExportConfig, flatten, override
from resnet_tf.core.errors import UserError
from resnet_tf.core.export_measurement import ExportMeasurement
from resnet_tf.core.export_metadata import Export, read_export
from resnet_tf.core.machine import bfloat16_flags, cores, processor
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.core.paths import user_path
from resnet_tf.core.serving_benchmark import OmittedExport, ServingBenchmark
from resnet_tf.inputs import Preprocess, create_preprocess, find_origin, input_type
from resnet_tf.serving.export import TARGETS, export_model
from resnet_tf.serving.export_benchmark import measure_export
from resnet_tf.serving.runners import is_installed
from resnet_tf.training.image_size import without_data
from resnet_tf.training.measurements import warning_if_unwritable, write_measurement
from resnet_tf.training.run import Run, create_network, load_run
from resnet_tf.workflows.evaluate import EvaluateResult, evaluate

logger = logging.getLogger(__name__)

_RANDOM_EXAMPLES = 64  # that calibrate int8 of a network without data

# Writes an export of a target in a precision to a directory, and returns the directory of the version.
_Write = Callable[[str, str, Path], Path]


def benchmark_exports(subject: Config | Run | str | Path, *, seconds: float) -> ServingBenchmark:
    """Measure exports, each in a new process on the CPU, one after another; see `benchmark`."""
    if isinstance(subject, Config):
        return _benchmark_network(subject, seconds)
    if isinstance(subject, Run):
        return _benchmark_run(subject, seconds)
    if (user_path(subject) / CONFIG_FILE).is_file():
        return _benchmark_run(load_run(subject), seconds)
    return _benchmark_export(read_export(subject), seconds)


def _benchmark_run(run: Run, seconds: float) -> ServingBenchmark:
    """Measure all exports of a run, store the result in its directory, and rewrite its report."""
    result = evaluate(run)
    evaluation = result.evaluation
    exports, omitted = _measure_all(functools.partial(_write_export, run), seconds, type(run.preprocess))
    reference = evaluation.to_dict()[evaluation.main_metric]
    benchmark = ServingBenchmark(
        network=run.model.name,
        metric=evaluation.main_metric,
        reference=reference if np.isfinite(reference) else None,
        examples=len(evaluation.targets),
        max_accuracy_drop=run.config.export.max_accuracy_drop,
        seconds=seconds,
        processor=processor(),
        cores=cores(),
        exports=exports,
        omitted=omitted,
    )
    _store(run, benchmark, result)
    return benchmark


def _store(run: Run, benchmark: ServingBenchmark, result: EvaluateResult) -> None:
    """Store the result in a run directory; one of somebody else, which cannot be written, stays as it is."""
    with warning_if_unwritable("the measurements"):
        write_measurement(run.workdir, run.identity, benchmark)
        assert result.report_directory
        logger.info("report  %s", result.write_report(result.report_directory))


def _benchmark_network(config: Config, seconds: float) -> ServingBenchmark:
    """Measure all exports of a network with random weights."""
    config = without_data(config)
    model = _network(config)
    with tempfile.TemporaryDirectory() as scratch:
        labels = [str(index) for index in range(model.output_shape[-1])]
        random_data = _random_data(config, labels, Path(scratch) / "random.npz")

        def write(target: str, precision: str, directory: Path) -> Path:
            data = random_data.data if precision == "int8" else None
            return export_model(model, directory, target=target, precision=precision, labels=labels, data=data)

        exports, omitted = _measure_all(write, seconds, input_type(config.data))
    return ServingBenchmark(
        network=config.model.name,
        metric=SingleLabelEvaluation.main_metric,
        reference=None,
        examples=0,
        max_accuracy_drop=ExportConfig().max_accuracy_drop,
        seconds=seconds,
        processor=processor(),
        cores=cores(),
        exports=exports,
        omitted=omitted,
    )


def _benchmark_export(export: Export, seconds: float) -> ServingBenchmark:
    """Measure one export; the metric of its network is that in its metadata."""
    metadata = export.metadata
    with export.naming_metadata():
        config = override(Config(), flatten(metadata.get("config", {})))
        preprocess = Preprocess.from_dict(metadata["preprocess"])
    metric = (MultiLabelEvaluation if "thresholds" in metadata else SingleLabelEvaluation).main_metric
    measured = measure_export(export.directory, seconds=seconds, input_type=type(preprocess))
    known = {} if measured.accuracy is None else metadata.get("metrics", {})
    return ServingBenchmark(
        network=metadata["model"],
        metric=metric,
        reference=known.get(metric),
        examples=int(known.get("examples") or 0),
        max_accuracy_drop=config.export.max_accuracy_drop,
        seconds=seconds,
        processor=processor(),
        cores=cores(),
        exports=(measured,),
    )


def _measure_all(
    write: _Write, seconds: float, inputs: type[Preprocess]
) -> tuple[tuple[ExportMeasurement, ...], tuple[OmittedExport, ...]]:
    """Measure every target and precision that this machine can run, and list the others with reasons."""
    find_origin(inputs)  # refuses, before all exports, a type that no other process can import
    candidates, omitted = list_candidates()
    exports: list[ExportMeasurement] = []
    for number, (target, precision) in enumerate(candidates, start=1):
        logger.info("export %d of %d: %s %s", number, len(candidates), target, precision)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                export = write(target, precision, Path(scratch) / target)
                exports.append(measure_export(export, seconds=seconds, input_type=inputs))
            except UserError as error:  # such as a drift above the tolerance
                logger.warning("%s %s is left out: %s", target, precision, error)
                omitted.append(OmittedExport(target, precision, str(error)))
    return tuple(exports), tuple(omitted)


def list_candidates() -> tuple[list[tuple[str, str]], list[OmittedExport]]:
    """Return the targets and precisions that this machine can run, and the others with reasons."""
    candidates: list[tuple[str, str]] = []
    omitted: list[OmittedExport] = []
    for target, precisions in TARGETS.items():
        if target == "hub_features":
            omitted.append(OmittedExport(target, "", "it returns features; 'hub' is the same network with its head"))
        elif not is_installed(target):
            omitted.append(OmittedExport(target, "", f"it needs pip install 'resnet_tf[{target}]'"))
        else:
            slow = [] if bfloat16_flags() else [each for each in precisions if each == "bfloat16"]
            omitted += [OmittedExport(target, each, "the processor has no bfloat16 instructions") for each in slow]
            candidates += [(target, each) for each in precisions if each not in slow]
    return candidates, omitted


def _write_export(run: Run, target: str, precision: str, directory: Path) -> Path:
    return export_model(run, directory, target=target, precision=precision)


def _random_data(config: Config, class_names: list[str], file: Path) -> Config:
    """Write random examples of two classes, and return the configuration with them as its data."""
    examples = input_type(config.data).random_examples(config.data, _RANDOM_EXAMPLES, np.random.default_rng(0))
    labels = np.arange(_RANDOM_EXAMPLES) % 2
    np.savez(file, x_train=examples, y_train=labels, x_test=examples, y_test=labels, class_names=class_names)
    splits = {"data.train_split": "train", "data.eval_split": "test", "data.test_split": ""}
    return override(config, {"data.source": str(file), **splits})


def _network(config: Config) -> keras.Model:
    """Create the network with statistics like those of a trained one: biases of zero would be optimized away."""
    model, generator = create_network(config, num_classes=config.model.num_classes or 1000), np.random.default_rng(0)
    if None in model.input_shape[1:]:
        raise UserError(f"{config.model.name} takes images of any size; train.end_size=0 fixes the measured size")
    for variable in model.variables:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "moving_mean")):
            variable.assign(generator.normal(0.0, 0.1, variable.shape))
    model.preprocess = create_preprocess(config.data)
    return model
