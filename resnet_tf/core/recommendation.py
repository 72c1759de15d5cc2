"""Recommendation of an export for deployment, from measurements of several."""

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_tf.core.export_measurement import ExportMeasurement
from resnet_tf.core.export_metadata import SAVED_MODELS
from resnet_tf.core.ranges import is_within
from resnet_tf.core.text import short_number

BASELINE = ("serving", "float32")  # target and precision that others are compared with


@dataclass(frozen=True)
class Recommendation:
    """Exports to deploy, of those whose accuracy is close enough to that of the network.

    Attributes:
        latency: the fastest one for one example, by its median latency; None if no export is accurate enough.
        throughput: the one with the largest throughput; None likewise.
        saved_model: if `latency` is no SavedModel, the fastest SavedModel for one example, for TensorFlow Serving;
            otherwise None.
        sentence: the recommendation in one sentence.
    """

    latency: ExportMeasurement | None
    throughput: ExportMeasurement | None
    saved_model: ExportMeasurement | None
    sentence: str


def recommend(
    exports: Sequence[ExportMeasurement], *, metric: str, reference: float | None, max_accuracy_drop: float
) -> Recommendation:
    """Return the exports to deploy.

    Args:
        exports: measurements.
        metric: name of the metric in words.
        reference: metric of the network itself, a fraction in [0, 1]; None if it was not measured, then all exports are
            candidates.
        max_accuracy_drop: largest difference between `reference` and the metric of an export, a fraction in [0, 1].
    """
    points = 100 * max_accuracy_drop
    limit = f"within {points:g} percentage point{'' if points == 1 else 's'} of the network's {metric}"
    candidates = [each for each in exports if _is_accurate(each, reference, max_accuracy_drop)]
    if not candidates:
        reason = f"is {limit}" if exports else "could be measured"
        return Recommendation(None, None, None, f"Deploy none of these exports: none {reason}.")
    latency = min(candidates, key=lambda each: each.milliseconds)
    throughput = max(candidates, key=lambda each: each.best.images_per_second)
    saved_models = [each for each in candidates if each.target in SAVED_MODELS]
    saved_model = None
    if saved_models and latency not in saved_models:
        saved_model = min(saved_models, key=lambda each: each.milliseconds)
    baseline = next((each for each in exports if (each.target, each.precision) == BASELINE), None)
    clauses = [
        f"Deploy {latency.name} for single images: {_latency(latency, baseline)}",
        f"{'it' if throughput is latency else throughput.name} has the best throughput, "
        f"{_throughput(throughput, baseline)}",
    ]
    if saved_model:
        clauses.append(f"with TensorFlow Serving, deploy {saved_model.name}: {_latency(saved_model, baseline)}")
    accuracy = "accuracy was not measured" if reference is None else f"each is {limit}"
    return Recommendation(latency, throughput, saved_model, f"{'; '.join([*clauses, accuracy])}.")


def _is_accurate(export: ExportMeasurement, reference: float | None, max_accuracy_drop: float) -> bool:
    if reference is None:
        return True
    return export.accuracy is not None and is_within(reference - export.accuracy, max_accuracy_drop)


def _latency(export: ExportMeasurement, baseline: ExportMeasurement | None) -> str:
    ratio = baseline.milliseconds / export.milliseconds if baseline else 1.0
    return f"{short_number(export.milliseconds)} ms{_times(ratio, export, baseline)}"


def _throughput(export: ExportMeasurement, baseline: ExportMeasurement | None) -> str:
    ratio = export.best.images_per_second / baseline.best.images_per_second if baseline else 1.0
    return f"{short_number(export.best.images_per_second)} images/s{_times(ratio, export, baseline)}"


def _times(ratio: float, export: ExportMeasurement, baseline: ExportMeasurement | None) -> str:
    if baseline is None or export is baseline:
        return ""
    return f" ({short_number(ratio)} times as fast as {baseline.name})"
