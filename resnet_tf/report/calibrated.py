"""Part of a page about calibrated probabilities."""

from resnet_tf.core.calibration_check import CalibrationCheck
from resnet_tf.core.metrics import METRIC_TITLES
from resnet_tf.core.text import counted
from resnet_tf.report import elements
from resnet_tf.report.elements import cell, escape, row

_METRICS = ("calibration_error", "loss", "brier_score")
_METHODS = {
    True: "each half of them calibrated by the fit on the other half",
    False: "calibrated by the fit on another split",
}


def section(check: CalibrationCheck | None) -> str:
    """Return the metrics before and after calibration as HTML; empty without calibration."""
    if check is None:
        return ""
    known = check.to_dict()
    rows = [
        row(
            cell(METRIC_TITLES[name]),
            *(cell(f"{known[f'{name}_{when}']:.4f}", "number") for when in ("before", "after")),
        )
        for name in _METRICS
    ]
    columns = ("before", "after")
    intro = f"On {counted(len(check.before.targets), 'example')}, {_METHODS[check.cross_fitted]}."
    table = elements.table(rows, head=elements.head(["", *columns], numbers=columns))
    return f"<p>{escape(intro)}</p>{table}{_coverage(check)}"


def _coverage(check: CalibrationCheck) -> str:
    if check.coverage is None:
        return ""
    text = f"{check.coverage:.1%} of the predictions are certain"
    precision = "" if check.precision is None else f", and {check.precision:.1%} of these are right"
    return f"<p>{escape(f'{text}{precision}; the others are answered as unsure.')}</p>"
