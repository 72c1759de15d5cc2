"""Search a data set for duplicates, leaks, label errors, outliers and low-quality images before training.

resnet-tf audit photos/                                           any data source; also photos.csv, data.npz, cifar10
python -m resnet_tf.audit --set data.source=photos/ --json
python -m resnet_tf.audit photos/ --model=runs/photos/export/serving     features of a network, in place of patches
python -m resnet_tf.audit photos/ --fix=list.csv                  also write a table without the flagged images
python -m resnet_tf.train --config=auto --set data.source=list.csv

It writes a page with the findings and their images, and prints their numbers. No file of the data is changed, moved or
deleted. docs/data.md describes the checks.

A SavedModel is a program: load exports of people you trust.
"""

import sys

from absl import flags

import resnet_tf
from resnet_tf.config import command_line
from resnet_tf.core import files
from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted

command_line.refuse_import(__name__)

FLAGS = flags.FlagValues()
SET = flags.DEFINE_multi_string(
    "set", [], "override a data key, as in --set data.source=photos/; repeatable", flag_values=FLAGS
)
MODEL = flags.DEFINE_string(
    "model", "", "exported network whose features find label errors and outliers; empty: none", flag_values=FLAGS
)
REPORT = flags.DEFINE_string("report", "audit", "directory of the page; empty: none", flag_values=FLAGS)
JSON = flags.DEFINE_bool("json", False, "print one JSON object with all findings", flag_values=FLAGS)
FIX = flags.DEFINE_string("fix", "", "CSV file to write, a data source without the flagged images", flag_values=FLAGS)
LEAVE_OUT = flags.DEFINE_list(
    "leave_out",
    "unreadable,exact_duplicates,leaks,label_conflicts,label_errors",
    "lists of findings whose images --fix leaves out",
    flag_values=FLAGS,
)


def main(arguments: list[str]) -> None:
    """Run the command."""
    data = command_line.optional_argument(arguments)
    if not data and not any(each.startswith("data.source=") for each in SET.value):
        raise UserError("give a data set: resnet-tf audit photos/")
    result = resnet_tf.audit(data, model=MODEL.value, overrides=SET.value, fix=FIX.value, leave_out=LEAVE_OUT.value)
    print(files.to_json(result.to_dict()) if JSON.value else result)
    if REPORT.value:
        print(f"report  {result.write_report(REPORT.value)}", file=sys.stderr)
    if table := result.table:
        rows = f"{counted(table.kept, 'image')}, without {table.left_out:,}"
        print(f"table   {table.path}: {rows}; --set {' --set '.join(table.settings)}", file=sys.stderr)


if __name__ == "__main__":
    command_line.run(main, FLAGS, doc=__doc__)
