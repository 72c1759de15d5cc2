"""Report of a run: a self-contained HTML page, and its plots as PNG files."""

from pathlib import Path

from resnet_tf.core import files
from resnet_tf.core.metrics import SingleLabelEvaluation
from resnet_tf.core.multi_label_metrics import MultiLabelEvaluation
from resnet_tf.report import calibrated, corruptions, elements, exports, multi_label, single_label
from resnet_tf.report.content import Report
from resnet_tf.report.elements import PAGE, escape, section
from resnet_tf.report.plots import SUMMARY_IMAGES, plot_panels, plot_summary

__all__ = ["PAGE", "SUMMARY", "Report", "write_page"]

SUMMARY = "summary.png"

# Modules with the parts of a page that depend on the form of the targets.
_FORMS = {SingleLabelEvaluation: single_label, MultiLabelEvaluation: multi_label}


def write_page(directory: Path, report: Report) -> Path:
    """Write `index.html` and its plots as PNG files to `directory`; return the path of the page.

    If the report has training metrics, `summary.png` combines the main plots. A missing directory is created. Of
    several reports written to one directory at once, all files are those of the last.

    Raises:
        UserError: if `directory` cannot be written.
    """
    with files.translate_write_errors(directory / PAGE), files.atomic_files(directory) as staging:
        _write_files(staging, report)
    return directory / PAGE


def _write_files(directory: Path, report: Report) -> None:
    panels = plot_panels(
        directory,
        metrics=report.metrics,
        evaluation=report.evaluation,
        class_names=report.class_names,
        train_counts=report.train_counts,
        calibration=report.calibration,
    )
    form = _FORMS[type(report.evaluation)]
    sections = [
        _headline(report),
        section("Training and evaluation", elements.plots(panels)),
        section("Calibration of the probabilities", calibrated.section(report.calibration)),
        section(corruptions.TITLE, corruptions.section(directory, report.robustness)) if report.robustness else "",
        section(exports.TITLE, exports.section(directory, report.serving)) if report.serving else "",
        *(section(title, content) for title, content in form.sections(report).items()),
        section("Configuration", f"<pre>{escape(report.config)}</pre>" if report.config else ""),
        section("Environment", elements.pairs(report.environment or {})),
    ]
    if report.metrics:
        _plot_summary(directory / SUMMARY, report)
    (directory / PAGE).write_text(elements.document(report.title, sections), encoding="utf-8")


def _plot_summary(path: Path, report: Report) -> None:
    evaluation = report.evaluation
    named = _FORMS[type(evaluation)].errors(report, SUMMARY_IMAGES)
    images = report.load_images(list(named))
    plot_summary(
        path,
        title=f"{report.title}: {evaluation}",
        metrics=report.metrics,
        evaluation=evaluation,
        class_names=report.class_names,
        errors=[(image, *names) for image, names in zip(images, named.values(), strict=True)],
    )


def _headline(report: Report) -> str:
    last = report.metrics[-1] if report.metrics else {}
    facts = {
        **_FORMS[type(report.evaluation)].tiles(report),
        "evaluated examples": f"{len(report.evaluation.targets):,}",
        **({"epochs": str(last["epoch"])} if last else {}),
        **(report.facts or {}),
    }
    return elements.tiles(facts)
