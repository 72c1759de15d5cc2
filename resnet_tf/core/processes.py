"""Environment of new Python processes."""

import os
import sys


def environment() -> dict[str, str]:
    """Return the environment of a new Python process that finds modules in the directories of this one.

    By itself, `python -m` looks in the working directory first, where a folder `resnet_tf` or a file `random.py` of
    the user would replace a module that this process has found elsewhere.
    """
    directories = dict.fromkeys(each or "." for each in sys.path)
    return os.environ | {"PYTHONPATH": os.pathsep.join(directories), "PYTHONSAFEPATH": "1"}
