"""Shared parts of all commands: flags, `--help`, one-line errors with exit code 2, and a quiet start of TensorFlow."""

import contextlib
import errno
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator

from absl import flags

from resnet_tf import config as config_lib
from resnet_tf.core import native_log
from resnet_tf.core.errors import Interrupted, UserError, closest, is_full_disk, write_failure
from resnet_tf.core.installation import check_installation
from resnet_tf.core.logs import stderr_handler
from resnet_tf.core.paths import user_path
from resnet_tf.core.streams import standard_streams, write_or_drop
from resnet_tf.core.text import printable

_TEMPORARY_FAILURE = 75  # EX_TEMPFAIL of sysexits.h
_DEFAULT_CONFIG = "digits"
_CONFIG_OF_OWN_DATA = "auto"
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)  # errors about a path, which the user can correct
_GROUP_FLAG = re.compile(r"--([^=]*\.[^=]*)(=.*)?", re.DOTALL)


def run(
    main: Callable[[list[str]], None], flag_values: flags.FlagValues, *, doc: str, with_config: bool = False
) -> None:
    """Parse `sys.argv`, call `main(positional_arguments)` and exit.

    A `UserError` is printed as one line on stderr, with exit code 2; `Interrupted` likewise, with exit code 75. For a
    command with `--set`, `--group.key=value` is short for `--set=group.key=value`.
    """
    with standard_streams():
        _run(main, flag_values, doc, with_config)


def _run(main: Callable[[list[str]], None], flag_values: flags.FlagValues, doc: str, with_config: bool) -> None:
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    argv, names = _with_underscores(sys.argv[:end]), sys.argv[end:]  # of files, which may begin with dashes
    if {"--help", "-h"} & set(argv[1:]):
        print(_help(flag_values, doc, with_config))
        return
    _log_to_stderr()
    try:
        argv = _expand_group_flags(argv) if "set" in flag_values else argv
        arguments = _parse(flag_values, [*argv, *names])
        check_installation()
        with _native_log_muted():
            _start_tensorflow()
        main(arguments)
    except flags.UnrecognizedFlagError as error:
        group = "" if with_config else "data."  # of the keys that --set takes
        keys = [key for key, _ in config_lib.iterate_keys() if key.startswith(group)] if "set" in flag_values else []
        sys.exit(_fail(_describe_unknown(error.flagname, list(flag_values), keys)))
    except UserError as error:
        sys.exit(_fail(str(error)))
    except Interrupted as stop:
        write_or_drop(sys.stderr, f"{printable(str(stop))}\n")
        sys.exit(_TEMPORARY_FAILURE)
    except KeyboardInterrupt:
        write_or_drop(sys.stderr, "interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not (message := _describe_failure(error)):
            raise
        sys.exit(_fail(message))


def refuse_import(module: str) -> None:
    """Refuse the import of a command, which would replace the public function of the same name.

    Args:
        module: `__name__` of the command.

    Raises:
        ImportError: unless it is run, by `python -m` or in a child process of that.
    """
    if module.startswith("resnet_tf."):
        raise ImportError(
            f"{module} is a command: run `python -m {module}`; in Python, call its function, which resnet_tf exports "
            "(docs/api.md, Commands)"
        )


def config_flags(flag_values: flags.FlagValues) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Define `--config` and the repeatable `--set`."""
    config = flags.DEFINE_string(
        "config",
        _DEFAULT_CONFIG,
        f"path of a .py or .json config, or a recipe: {', '.join(config_lib.list_configs())}; without it, "
        f"{_CONFIG_OF_OWN_DATA} for a data source that is set",
        flag_values=flag_values,
    )
    overrides = flags.DEFINE_multi_string(
        "set", [], "override a key, as in --set data.batch_size=64; repeatable", flag_values=flag_values
    )
    return config, overrides


def recipe_or_data(
    arguments: list[str], config: flags.FlagHolder, overrides: flags.FlagHolder
) -> tuple[str, list[str]]:
    """Return the config and the overrides of a command line whose only argument is a recipe's name or a data source.

    Raises:
        UserError: for further arguments, and for an assignment without dashes.
    """
    argument = optional_argument(arguments)
    if not config.present and argument in config_lib.list_configs() and not user_path(argument).exists():
        return argument, overrides.value
    values = [f"data.source={argument}", *overrides.value] if argument else overrides.value
    return chosen_config(config, values), values


def chosen_config(config: flags.FlagHolder, overrides: Iterable[str]) -> str:
    """Return the value of `--config`; without that flag, the recipe for any images if `overrides` set a data source.

    The default recipe is made for the digits: other images would be trained at their size, by their network.
    """
    source = config_lib.parse_assignments(overrides).get("data.source", _DEFAULT_CONFIG)
    return _CONFIG_OF_OWN_DATA if not config.present and source != _DEFAULT_CONFIG else config.value


def checkpoint_flag(flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Define `--checkpoint`, the argument of `load_run`."""
    return flags.DEFINE_enum(
        "checkpoint",
        "",
        ["", "latest", "best"],
        "checkpoint of the run, best by its validation split; empty: its export.checkpoint",
        flag_values=flag_values,
    )


def no_arguments(arguments: list[str]) -> None:
    """Refuse positional arguments, which are most often flags without their dashes."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; flags start with --, see --help")


def optional_argument(arguments: list[str]) -> str:
    """Return the only positional argument, or an empty text without one.

    Raises:
        UserError: for further arguments, and for an assignment without dashes.
    """
    if not arguments or "=" in arguments[0]:
        no_arguments(arguments)
        return ""
    no_arguments(arguments[1:])
    return arguments[0]


def run_directory(arguments: list[str], workdir: str, purpose: str) -> str:
    """Return the run directory, which is the only positional argument, or the value of `--workdir`.

    Raises:
        UserError: for both, for neither, and for further arguments.
    """
    path = optional_argument(arguments)
    if path and workdir:
        raise UserError(f"both {path!r} and --workdir={workdir} are given; one run directory is needed")
    if not path and not workdir:
        raise UserError(f"--workdir=DIR is missing: the run to {purpose}")
    return path or workdir


def require(*required: flags.FlagHolder) -> None:
    """Refuse a command line without one of the flags that have no default."""
    for flag in required:
        if not flag.value:
            raise UserError(f"{_as_typed(flag.name)} is missing; see --help")


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[stderr_handler()])
    logging.getLogger("resnet_tf").setLevel(logging.INFO)


def _fail(message: str) -> int:
    write_or_drop(sys.stderr, f"error: {printable(' '.join(message.split()))}\n")
    return 2


def _describe_failure(error: Exception) -> str:
    """Return the message for a full disk, or a path that the system refuses; empty for another error."""
    if is_full_disk(error):
        return write_failure(error)
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return f"{str(error.filename)!r}: {error.strerror}"
    return ""


def _describe_unknown(unknown: str, known: list[str], keys: list[str]) -> str:
    """Return the message for an unknown flag, with the keys of the configuration that have its name or a part of it.

    >>> _describe_unknown("epochs", ["workdir"], ["train.epochs", "data.batch_size"])
    "unknown flag 'epochs'; did you mean --train.epochs?"
    """
    groups, names = ([key.split(".")[part] for key in keys] for part in (0, 1))
    same = [key for key, name in zip(keys, names, strict=True) if name == unknown]
    if not same and unknown in groups:
        same = [keys[groups.index(unknown)]]  # the name of the model, the source of the data
    same = same or [key for key, name in zip(keys, names, strict=True) if unknown in name.split("_")]
    near = " or ".join(f"--{key}" for key in same) if same else closest(unknown, known).replace("_", "-")
    return f"unknown flag {unknown.replace('_', '-')!r}; did you mean {near}?"


def _as_typed(name: str) -> str:
    """Return the name of a flag as `--help` prints it: --batch-size for batch_size."""
    return f"--{name.replace('_', '-')}"


def _with_underscores(argv: list[str]) -> list[str]:
    """Convert --batch-size=8 to --batch_size=8 and --data.batch-size=8 to --data.batch_size=8, the names in Python."""
    return [re.sub(r"^--[\w.-]+", lambda flag: "--" + flag[0][2:].replace("-", "_"), argument) for argument in argv]


def _expand_group_flags(argv: list[str]) -> list[str]:
    """Convert --data.source=x and --data.source x to --set=data.source=x.

    Raises:
        UserError: for a flag without a value: at the end, or followed by another flag.
    """
    expanded, rest = argv[:1], list(argv[1:])
    while rest:
        argument = rest.pop(0)
        if match := _GROUP_FLAG.fullmatch(argument):
            key, value = match.groups()
            if expanded[-1] == "--set":
                raise UserError("--set has no value; write --set=KEY=VALUE")
            if value is None and (not rest or rest[0].startswith("--")):
                raise UserError(f"--{key} has no value; write --{key}=VALUE")
            argument = f"--set={key}{value if value is not None else '=' + rest.pop(0)}"
        expanded.append(argument)
    return expanded


def _parse(flag_values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parse the command line, and return its positional arguments.

    Raises:
        UserError: for a value that its flag does not take, and for a flag without a value.
        flags.UnrecognizedFlagError: for an unknown flag.
    """
    try:
        return flag_values(argv)[1:]
    except flags.UnrecognizedFlagError:
        raise
    except flags.IllegalFlagValueError as error:
        raise UserError(_describe_illegal(error, flag_values)) from error
    except (flags.Error, ValueError) as error:  # the latter for --nojson=3
        message = re.sub(r"Missing value for flag (--?)(\w+)", _describe_missing, str(error))
        raise UserError(message) from error


def _describe_missing(match: re.Match[str]) -> str:
    name = _as_typed(match[2])
    return f"{name} has no value; write {name}=VALUE"


def _describe_illegal(error: flags.IllegalFlagValueError, flag_values: flags.FlagValues) -> str:
    """Return the message for a value that is not of the type of its flag, such as text for a number."""
    text = str(error).removesuffix(f": {error.__context__}")  # the reason in the words of Python
    match = re.fullmatch(r"flag --(\w+)=(.*)", text, re.DOTALL)
    if not match:
        return str(error)
    return f"{_as_typed(match[1])}={match[2]}: expected {_expected(flag_values[match[1]].parser)}"


def _expected(parser: flags.ArgumentParser) -> str:
    """Return the values that a flag takes.

    >>> _expected(flags.IntegerParser(lower_bound=4))
    'a whole number >= 4'
    """
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    if isinstance(parser, flags.EnumParser):
        return f"one of {', '.join(filter(None, parser.enum_values))}"
    name = re.sub("(an )?integer", "whole number", parser.syntactic_help)
    return name if name.startswith("a ") else f"a {name}"


def _help(flag_values: flags.FlagValues, doc: str, with_config: bool) -> str:
    defined = [flag for group in flag_values.flags_by_module_dict().values() for flag in group]
    lines = [doc.strip(), "", "Flags:"]
    lines += _columns([*map(_describe, defined), ("--help", "show this text")], width=20)
    if with_config:
        lines += [
            "",
            "Configuration keys, set with --set KEY=VALUE; shown with their defaults, which a recipe may change:",
        ]
        lines += _columns(config_lib.describe_keys(), width=44)
    return "\n".join(lines)


def _describe(flag: flags.Flag) -> tuple[str, str]:
    """Return the name of a flag as it is typed, and its meaning without the additions of absl."""
    meaning = re.sub(r"^<.*?>: |;?\n.*", "", flag.help)
    if isinstance(flag, flags.EnumFlag):
        meaning += f" ({' | '.join(filter(None, flag.parser.enum_values))})"
    silent = isinstance(flag, flags.BooleanFlag) or flag.default in (None, [], "")
    return _as_typed(flag.name), meaning + ("" if silent else f" (default: {flag.default})")


def _columns(rows: Iterable[tuple[str, str]], *, width: int) -> list[str]:
    """Return lines of at most 120 characters, one or more for each row."""
    indent = " " * (width + 3)
    return [
        line
        for name, meaning in rows
        for line in textwrap.wrap(
            meaning,
            width=120,
            initial_indent=f"  {name:<{width}} ",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def _start_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Memory of GPUs as needed, in every command and its new processes.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import tensorflow as tf

    tf.get_logger().setLevel(logging.ERROR)
    tf.config.list_physical_devices()  # looks for a GPU now, while the native log is muted


@contextlib.contextmanager
def _native_log_muted() -> Iterator[None]:
    """Mute stderr while TensorFlow's C++ code starts, unless `TF_CPP_MIN_LOG_LEVEL` is set.

    The banners of oneDNN and CUDA precede the log level, so that only the file descriptor can be muted. The output is
    printed if the start fails.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    with native_log.filtered(lambda line: False):
        yield
