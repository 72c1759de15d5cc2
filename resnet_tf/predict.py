"""Classify images or signals with an exported model.

python -m resnet_tf.predict DIR/export/serving cat.jpg dog.png                    or --model=DIR/export/serving
python -m resnet_tf.predict --model=DIR/export/litert --csv photos/ > all.csv     folders, recursively
python -m resnet_tf.predict --model=DIR/export/serving --json - < cat.jpg         one image from standard input
python -m resnet_tf.predict --model=DIR/export/serving --explain=maps/ photos/    also Grad-CAM overlays
python -m resnet_tf.predict --model=DIR/export/serving heart.npy                  a signal, for one-dimensional networks

A SavedModel is a program: load exports of people you trust. The manifest of an export detects corruption; it does not
show who wrote the files.
"""

import csv
import sys
from collections.abc import Callable

from absl import flags

import resnet_tf
from resnet_tf.config import command_line
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted, printable

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
MODEL = flags.DEFINE_string("model", "", "exported model, or the directory of its versions", flag_values=FLAGS)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "examples per batch", lower_bound=1, flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object per example", flag_values=FLAGS)
CSV = flags.DEFINE_bool("csv", False, "print a CSV table: file, then label and score of each rank", flag_values=FLAGS)
EXPLAIN = flags.DEFINE_string("explain", "", "directory for Grad-CAM overlays, one PNG per image", flag_values=FLAGS)

_SEPARATOR = "|"  # of the selected classes in a cell of the table
_MAX_WIDTH = 40  # of the column of labels; longer labels move the score of their line to the right


def main(arguments: list[str]) -> None:
    """Run the command."""
    model, *arguments = [MODEL.value, *arguments] if MODEL.value else arguments or [""]
    if not model:
        raise UserError("--model=EXPORTED is missing, such as DIR/export/serving/1")
    if not arguments:
        raise UserError("no images given: name files or folders, or - for one image from standard input")
    if JSON.value and CSV.value:
        raise UserError("give --json or --csv, not both")

    predictor, count, certain = resnet_tf.Predictor(model), 0, 0
    show = _as_json if JSON.value else _as_csv(predictor) if CSV.value else _as_text(predictor)
    for prediction in resnet_tf.predict(
        predictor, arguments, batch_size=BATCH_SIZE.value, explain=EXPLAIN.value or None
    ):
        show(prediction)
        count += 1
        certain += not prediction.unsure
    if (limit := predictor.confidence_threshold) is not None:
        coverage = f"{certain:,} of {counted(count, 'prediction')} ({certain / count:.1%}) are certain"
        target = f"export.target_precision={predictor.calibration.target_precision:g}"
        print(f"coverage  {coverage}: their score reaches {limit:.4f}, of {target}", file=sys.stderr)
    if EXPLAIN.value:
        print(f"{count} overlays in {EXPLAIN.value!r}", file=sys.stderr)


def _as_json(prediction: "resnet_tf.Prediction") -> None:
    print(files.to_json(prediction.to_dict()))


def _as_csv(predictor: "resnet_tf.Predictor") -> Callable[["resnet_tf.Prediction"], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    ranks = range(1, predictor.top_k + 1)
    columns = [f"{column}{rank}" for rank in ranks for column in ("label", "score")]
    optional = {"selected": predictor.thresholds, "unsure": predictor.confidence_threshold}
    writer.writerow(["file", *(name for name, value in optional.items() if value is not None), *columns])

    def show(prediction: "resnet_tf.Prediction") -> None:
        pairs = zip(prediction.labels, prediction.scores, strict=True)
        cells = (cell for label, score in pairs for cell in (printable(label), f"{score:.6f}"))
        selected = [] if prediction.selected is None else [_SEPARATOR.join(map(printable, prediction.selected))]
        unsure = [] if prediction.unsure is None else ["unsure" if prediction.unsure else ""]
        writer.writerow([printable(prediction.file), *selected, *unsure, *cells])

    return show


def _as_text(predictor: "resnet_tf.Predictor") -> Callable[["resnet_tf.Prediction"], None]:
    width = min(max(len(printable(label)) for label in predictor.labels), _MAX_WIDTH)

    def show(prediction: "resnet_tf.Prediction") -> None:
        print(f"{printable(prediction.file)}{'  unsure' if prediction.unsure else ''}")
        pairs = zip(prediction.labels, prediction.scores, strict=True)
        found = list(pairs) if prediction.selected is None else list(prediction.selected.items())
        for rank, (label, score) in enumerate(found, start=1):
            print(f"  {rank}  {printable(label):<{width}}  {score:.4f}")
        if not found:
            print("  no class reaches its threshold")

    return show


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
