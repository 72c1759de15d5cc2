"""Progress of long work: one line on a terminal, sparse lines elsewhere, nothing for short work; and its uses."""

import contextlib
import dataclasses
import errno
import io
import json
import logging
import os
import re
import sys
import time
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from conftest import write_imagenet_records
from PIL import Image
from pyarrow import parquet as pq

import resnet_tf
from resnet_tf.core import progress_line
from resnet_tf.core.logs import shown_log, stderr_handler
from resnet_tf.core.progress_line import Progress, format_seconds, tracked
from resnet_tf.data import unreadable
from resnet_tf.data.prepare import prepare_folder
from resnet_tf.data.sources import open_source, overlaps, records, tfds_builders
from resnet_tf.data.sources.imagenet_records import _parse
from resnet_tf.data.sources.tables import images
from resnet_tf.data.sources.tables.files import read_table
from resnet_tf.training.evaluation import Evaluator
from resnet_tf.training.trainer import Trainer


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """Lines as they are shown: the part of each behind the last erasure."""
        return [line.rpartition("\r\x1b[K")[2] for line in self.getvalue().split("\n")]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def _shown():
    with shown_log():
        yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _work(progress: Progress, clock: Clock, *, seconds: int, rate: int) -> None:
    for _ in range(seconds):
        clock.now += 1
        progress.done += rate
        progress.report()
    progress.close()


@pytest.mark.usefixtures("_shown")
def test_a_count_with_a_total(clock):
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        progress = Progress("indexing 'a'", noun="file", total=8000, stream=stream, clock=clock)
        _work(progress, clock, seconds=80, rate=100)
    assert log.getvalue().splitlines() == [
        "indexing 'a': 300 of 8,000 files (4%), 1:17 left",
        "indexing 'a': 3,300 of 8,000 files (41%), 0:47 left",
        "indexing 'a': 6,300 of 8,000 files (79%), 0:17 left",
        "indexing 'a': 8,000 files in 1:20",
    ]
    assert terminal.screen == ["indexing 'a': 8,000 files in 1:20", ""]
    assert terminal.getvalue().startswith(
        "\r\x1b[Kindexing 'a': 300 of 8,000 files (4%), 1:17 left\r\x1b[Kindexing 'a': 400 of 8,000 files (5%), 1:16"
    )


@pytest.mark.usefixtures("_shown")
@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_short_work_is_silent(stream, clock):
    shown = stream()
    _work(Progress("reading", noun="file", stream=shown, clock=clock), clock, seconds=2, rate=1000)
    assert not shown.getvalue()


@pytest.mark.usefixtures("_shown")
def test_work_without_a_count_shows_its_time(clock):
    log = io.StringIO()
    _work(Progress("compiling\x1b[2J", stream=log, clock=clock), clock, seconds=65, rate=0)
    assert log.getvalue().splitlines() == [
        r"compiling\x1b[2J: 0:03",
        r"compiling\x1b[2J: 0:33",
        r"compiling\x1b[2J: 1:03",
        r"compiling\x1b[2J in 1:05",
    ]


@pytest.mark.usefixtures("_shown")
def test_repeated_work_is_shown_on_a_terminal_only_and_leaves_no_line(clock):
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        progress = Progress("evaluating", noun="example", transient=True, stream=stream, clock=clock)
        _work(progress, clock, seconds=9, rate=1)
    assert "evaluating: 9 examples" in terminal.getvalue()
    assert terminal.screen == [""]
    assert not log.getvalue()


@pytest.mark.usefixtures("_shown")
def test_work_that_fails_has_no_last_line(clock):
    terminal = Terminal()
    with contextlib.suppress(KeyError), Progress("indexing", stream=terminal, clock=clock) as progress:
        clock.now += 60
        progress.report()
        raise KeyError
    assert terminal.getvalue().startswith("\r\x1b[Kindexing: 1:00")
    assert terminal.screen == [""]


@pytest.mark.parametrize(
    ("level", "always", "lines"), [("WARNING", False, 0), ("INFO", False, 1), ("WARNING", True, 1)]
)
def test_progress_follows_the_level_of_the_log(clock, level, always, lines):
    log, logger = io.StringIO(), logging.getLogger("resnet_tf")
    logger.setLevel(level)
    try:
        _work(Progress("reading", always=always, stream=log, clock=clock), clock, seconds=3, rate=0)
    finally:
        logger.setLevel(logging.NOTSET)
    assert len(log.getvalue().splitlines()) == 2 * lines


@pytest.mark.usefixtures("_shown")
def test_messages_erase_the_line(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = stderr_handler()
    with Progress("indexing", noun="file", clock=clock) as progress:
        clock.now += 10
        progress.report()
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "skipped a.txt", None, None))
        assert terminal.screen == ["skipped a.txt", ""]
        clock.now += 1
        progress.report()
    assert terminal.screen == ["skipped a.txt", "indexing: 0 files in 0:11", ""]


class Lost(Terminal):
    """A terminal that was closed, or a log on a full disk, once `code` is set."""

    code = 0  # of the error of each write

    def flush(self) -> None:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.usefixtures("_shown")
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_lost_terminal_or_a_full_disk_ends_no_work(clock, monkeypatch, code):
    """Regression: the error of the log ended the training that was reported."""
    terminal = Lost()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging, "raiseExceptions", False)  # pytest refuses what `logging` prints itself
    handler = stderr_handler()
    with Progress("indexing", noun="file", clock=clock) as progress:
        clock.now += 10
        progress.report()
        terminal.code = code
        handler.emit(logging.LogRecord("x", logging.WARNING, "", 0, "skipped a.txt", None, None))
        clock.now += 10
        progress.report()
    assert "indexing: 0 files in 0:20" in terminal.screen


@pytest.mark.usefixtures("_shown")
def test_a_reader_that_went_away_ends_the_work(clock):
    pipe = Lost()
    pipe.code = errno.EPIPE
    with pytest.raises(BrokenPipeError):
        _work(Progress("indexing", stream=pipe, clock=clock), clock, seconds=10, rate=1)


@pytest.mark.usefixtures("_shown")
def test_the_inner_of_two_reports(clock):
    log = io.StringIO()
    with Progress("outer", stream=log, clock=clock) as outer:
        clock.now += 10
        with Progress("inner", stream=log, clock=clock):
            outer.report()
    assert log.getvalue() == "outer in 0:10\n"


@pytest.mark.usefixtures("_shown")
def test_a_thread_reports_during_work_that_does_not(monkeypatch):
    monkeypatch.setattr(progress_line, "PATIENCE", 0.0)
    log = io.StringIO()
    with Progress("compiling", stream=log):
        deadline = time.monotonic() + 30
        while not log.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert log.getvalue().splitlines() == ["compiling: 0:00", "compiling in 0:00"]


def test_items_are_unchanged():
    assert list(tracked(iter("abc"), "reading", noun="file", total=3)) == ["a", "b", "c"]
    assert (format_seconds(75), format_seconds(3700)) == ("1:15", "1:01:40")


@pytest.fixture
def reported(monkeypatch, capsys, _shown):
    """Return a function that returns what was reported since: each piece of work, however short, reports its end."""
    monkeypatch.setattr(progress_line, "PATIENCE", 0.0)

    def lines() -> list[str]:
        return re.findall(r"^(.*) in \d+:\d\d$", capsys.readouterr().err, re.MULTILINE)

    return lines


def test_folders_are_indexed_and_hashed_with_progress(photos, reported, tiny_config):
    data = dataclasses.replace(tiny_config.data, source=str(photos), train_split="train", eval_split="test")
    source = open_source(data)
    # The folders of the splits are listed by name first.
    assert f"indexing {str(photos / 'train')!r}: 12 files" in reported()
    assert source.identity
    assert f"hashing the names and sizes of {str(photos)!r}: 12 files" in reported()
    assert not overlaps.describe_overlaps(source)
    *files, splits = reported()
    assert splits == "comparing the splits"
    assert set(files) <= {f"comparing the splits: {count}" for count in ("0 files", "1 file", "2 files")}
    assert not unreadable.find_unreadable(source.validation, resnet_tf.ImagePreprocess(size=(8, 8)))
    assert reported() == ["searching split 'test' for unreadable examples: 6 examples"]


def test_preparation_shows_progress(photos, reported, tmp_path):
    prepare_folder(photos, tmp_path / "prepared", eval_fraction=0.1)
    assert "preparing 'photos': 18 images" in reported()


def test_records_are_indexed_with_progress(reported, tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "png")
    path = tmp_path / "train-00000-of-00001"
    write_imagenet_records(path, [(file.getvalue(), 1, {})] * 3)
    records.index([str(path)], _parse, layout="imagenet")
    assert reported() == ["indexing record files: 3 records"]


def test_images_of_tables_are_found_and_copied_with_progress(tiny_images, reported, tmp_path, monkeypatch, tiny_config):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(tiny_images[index])
    table = tmp_path / "table.csv"
    table.write_text("file,label\n" + "".join(f"{index}.png,{index % 2}\n" for index in range(4)))
    open_source(dataclasses.replace(tiny_config.data, source=str(table), train_split="all", eval_split="all"))
    assert any(line.startswith(f"finding the images in {str(tmp_path)!r}: ") for line in reported())
    columns = {"image": pa.array(tiny_images[:4]), "label": pa.array([0, 1, 0, 1])}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    found = read_table(tmp_path / "table.parquet")
    images._open_cached(found, "image", np.array([0, 1, 0, 1]))
    assert f"copying the images of {str(tmp_path / 'table.parquet')!r}: 4 images" in reported()


def test_downloads_of_data_show_progress(reported):
    builder = Mock()
    builder.info.full_name = "cifar10/3.0.2"
    tfds_builders._download_and_prepare(builder)
    builder.download_and_prepare.assert_called_once()
    assert reported() == ["downloading and preparing 'cifar10/3.0.2'"]


def test_only_the_first_call_of_a_step_reports_compilation():
    compiled: set = set()
    trainer = Mock(_compiled=compiled)
    first, again, other = (Trainer._compilation(trainer, False, size) for size in (None, None, 32))
    assert [isinstance(each, Progress) for each in (first, again, other)] == [True, False, True]


@pytest.mark.slow
def test_evaluations_show_progress_on_every_stream_the_first_time(tiny_config, tiny_run, reported, monkeypatch):
    run = resnet_tf.load_run(tiny_run)
    assert any(line.startswith("verifying the files of") for line in reported())
    validation = open_source(tiny_config.data).validation
    assert f"reading {tiny_config.data.source!r}" in reported()
    strategy = tf.distribute.get_strategy()
    evaluator = Evaluator(run.model, validation, run.preprocess, batch_size=60, strategy=strategy)
    evaluator()
    assert reported() == ["evaluating split 'test[:100]': 100 examples"]
    evaluator()
    assert not reported()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    evaluator()
    assert not "".join(terminal.screen)


@pytest.mark.slow
@pytest.mark.long
def test_all_long_work_of_a_command_is_shown(digits_arrays, tmp_path, command, monkeypatch):
    monkeypatch.setattr(progress_line, "PATIENCE", 0.0)
    flags = ("train.epochs=1", "model.name=resnet8_w32", "data.batch_size=128", f"data.source={digits_arrays}")
    outcome = command("train", f"--workdir={tmp_path / 'run'}", *(f"--set={each}" for each in flags))
    assert outcome.code == 0, outcome.err
    lines = [line.rpartition(" in ")[0] for line in outcome.err.splitlines()]
    for expected in (
        f"reading {str(digits_arrays)!r}",
        "comparing the splits",
        "compiling the training step",
        "evaluating split 'test': 899 examples",
        "exporting for target 'serving'",
        "verifying the export in a new process",
    ):
        assert expected in lines, expected
    evaluated = command("evaluate", f"--model={tmp_path / 'run' / 'export' / 'serving'}", "--json")
    assert "evaluating split 'test': 899 examples in " in evaluated.err
    assert json.loads(evaluated.out)["examples"] == 899
