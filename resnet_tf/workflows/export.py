"""Export of a run directory."""

from pathlib import Path

from resnet_tf.core.paths import user_path
from resnet_tf.serving.export import check_target, export_model
from resnet_tf.serving.signatures import DEFAULT_SIGNATURE
from resnet_tf.training.run import EXPORTS, load_run


def export(
    workdir: str | Path,
    directory: str | Path | None = None,
    *,
    checkpoint: str = "",
    target: str = "serving",
    precision: str = "auto",
    default_signature: str = DEFAULT_SIGNATURE,
) -> Path:
    """Export a run as the next version, and return the directory of that version.

    Args:
        workdir: the run directory.
        directory: where versions are written, `directory/1`, `directory/2`, ...; by default `workdir/export/TARGET`.
        checkpoint: see `load_run`.
        target: see `export_model`, which also exports models that were trained elsewhere.
        precision: see `export_model`.
        default_signature: see `export_model`.

    Raises:
        UserError: as `load_run` and `export_model`.
    """
    check_target(target, precision)
    run = load_run(workdir, checkpoint=checkpoint)
    versions = user_path(directory or user_path(workdir) / EXPORTS / target)
    return export_model(run, versions, target=target, precision=precision, default_signature=default_signature)
