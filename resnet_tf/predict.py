"""Name what is on pictures, or in signals, with an exported model of any kind.

python -m resnet_tf.predict --model=DIR/export/serving cat.jpg dog.png
python -m resnet_tf.predict --model=DIR/export/litert --csv photos/ > all.csv     folders, with all that is below them
python -m resnet_tf.predict --model=DIR/export/serving --json - < cat.jpg         one picture from standard input
python -m resnet_tf.predict --model=DIR/export/serving --explain=maps/ photos/    also where the network looked
python -m resnet_tf.predict --model=DIR/export/serving heart.npy                  a signal, to a network of signals
"""

import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from resnet_tf.config import command_line
from resnet_tf.core.errors import UserError

if TYPE_CHECKING:
    from resnet_tf.serving.predictor import Prediction, Predictor

FLAGS = flags.FlagValues()
MODEL = flags.DEFINE_string("model", "", "exported model, or the directory of its versions", flag_values=FLAGS)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "pictures answered at a time", lower_bound=1, flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object a picture", flag_values=FLAGS)
CSV = flags.DEFINE_bool("csv", False, "print a table: file, and label and score of each place", flag_values=FLAGS)
EXPLAIN = flags.DEFINE_string("explain", "", "directory for Grad-CAM overlays, a PNG a picture", flag_values=FLAGS)

_SUFFIXES = {"pictures": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp"), "signals": (".npy",)}
_STANDARD_INPUT = "-"


def main(arguments: list[str]) -> None:
    if not MODEL.value:
        raise UserError("--model=EXPORTED is missing, such as DIR/export/serving/1")
    if not arguments:
        raise UserError("no pictures given: name files or folders, or - for one picture from standard input")
    if JSON.value and CSV.value:
        raise UserError("give --json or --csv, not both")

    from resnet_tf.serving.predictor import Predictor

    predictor = Predictor(MODEL.value)
    kind = "signals" if predictor.preprocess.is_of_signals else "pictures"
    files = [file for argument in arguments for file in _list_files(argument, kind)]
    pictures = [sys.stdin.buffer.read() if file == _STANDARD_INPUT else file for file in files]
    show = _as_json if JSON.value else _as_csv(predictor) if CSV.value else _as_text(predictor)
    for file, prediction in zip(files, predictor.stream(pictures, batch_size=BATCH_SIZE.value), strict=True):
        show(file, prediction)
    if EXPLAIN.value:
        _draw_explanations(predictor, files, pictures, Path(EXPLAIN.value))


def _list_files(argument: str, kind: str) -> list[str]:
    """A file itself; of a folder, the pictures or signals in it and below it, in order."""
    folder, suffixes = Path(argument), _SUFFIXES[kind]
    if not folder.is_dir():
        return [argument]
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not found:
        raise UserError(f"no {kind} in {argument!r}: none of its files ends in {', '.join(suffixes)}")
    return found


def _as_json(file: str, prediction: "Prediction") -> None:
    print(json.dumps({"file": file, **dataclasses.asdict(prediction)}))


def _as_csv(predictor: "Predictor") -> Callable[[str, "Prediction"], None]:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    places = range(1, predictor.top_k + 1)
    writer.writerow(["file", *(f"{what}{place}" for place in places for what in ("label", "score"))])

    def show(file: str, prediction: "Prediction") -> None:
        pairs = zip(prediction.labels, prediction.scores, strict=True)
        writer.writerow([file, *(cell for label, score in pairs for cell in (label, f"{score:.6f}"))])

    return show


def _as_text(predictor: "Predictor") -> Callable[[str, "Prediction"], None]:
    width = max(len(label) for label in predictor.labels)

    def show(file: str, prediction: "Prediction") -> None:
        print(file)
        for place, (label, score) in enumerate(zip(prediction.labels, prediction.scores, strict=True), start=1):
            print(f"  {place}  {label:<{width}}  {score:.4f}")

    return show


def _draw_explanations(
    predictor: "Predictor", files: Sequence[str], pictures: Sequence[str | bytes], directory: Path
) -> None:
    """A PNG for each picture, numbered: two folders may have files of one name."""
    from resnet_tf.report.overlay import plot_overlay

    explanations = predictor.explain(pictures, batch_size=BATCH_SIZE.value)
    for number, (file, (crop, heatmap, label)) in enumerate(zip(files, explanations, strict=True), start=1):
        stem = "stdin" if file == _STANDARD_INPUT else Path(file).stem
        plot_overlay(directory / f"{number:0{len(str(len(files)))}d}_{stem}.png", crop, heatmap, title=label)
    print(f"{len(files)} overlays in {str(directory)!r}", file=sys.stderr)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
