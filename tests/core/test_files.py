"""Atomic writes under kills, failures, full disks and concurrent readers; manifests, JSON and JSON Lines."""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TypedDict

import pytest
from conftest import CORRUPTIONS, find_listed_corruption, is_staging, write_listed

from resnet_tf.core import files, locks
from resnet_tf.core.errors import UserError, is_full_disk

PACKAGE = Path(files.__file__).parents[1]
OLD, NEW = "old " * 1000, "new " * 2000
RAW_WRITES = re.compile(
    r"\bos\.(replace|rename|fsync)\b|\.rename\(|\.replace\((target|path|final|self\._path)|"
    r"NamedTemporaryFile|mkdtemp|\.savefig\((?!staging)"
)


class _Line(TypedDict):
    step: int


def _write_file(path: Path, content: str) -> None:
    with files.atomic_file(path) as staging:
        assert staging.name == path.name, "suffixes decide what libraries write"
        staging.write_text(content)


def _write_directory(path: Path, content: str) -> None:
    with files.atomic_directory(path, replace=True) as staging:
        assert staging.name == path.name
        (staging / "below").mkdir()
        for name in ("a", "below/b"):
            (staging / name).write_text(content)


def _read_directory(path: Path) -> str:
    first, second = ((path / name).read_text() for name in ("a", "below/b"))
    assert first == second
    return first


WRITERS = {"file": (_write_file, Path.read_text), "directory": (_write_directory, _read_directory)}
each_writer = pytest.mark.parametrize(("write", "read"), WRITERS.values(), ids=WRITERS)


def _kill_at(call: str, target: str, path: Path) -> None:
    """Overwrite `path` in a process that is killed just before, or just after, the given call of os."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from resnet_tf.core import files
name, number, when = {call!r}.split(":")
calls, original = [], getattr(os, name)
def kill(*arguments, **options):
    calls.append(arguments)
    if len(calls) == int(number) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **options)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(os, name, kill)
path = Path({str(path)!r})
if {target!r} == "file":
    files.write_atomically(path, {NEW!r})
else:
    with files.atomic_directory(path, replace=True) as staging:
        (staging / "below").mkdir()
        for each in ("a", "below/b"):
            (staging / each).write_text({NEW!r})
"""
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == -9, child.stderr


@each_writer
def test_the_content_is_written_and_nothing_else(write, read, tmp_path):
    path = tmp_path / "missing" / "parents" / "name.keras"
    for content in (OLD, NEW):
        write(path, content)
        assert read(path) == content
        assert [each.name for each in path.parent.iterdir()] == ["name.keras"]


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    assert files.write_atomically(tmp_path / "text", "é\n") == tmp_path / "text"
    assert (tmp_path / "text").read_bytes() == "é\n".encode()
    files.write_atomically(str(tmp_path / "bytes"), b"\x00\r\n")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n"


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    _write_file(tmp_path / "atomic", NEW)
    _write_directory(tmp_path / "directory", NEW)
    (tmp_path / "plain directory").mkdir()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "directory").stat().st_mode == (tmp_path / "plain directory").stat().st_mode


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.keras").symlink_to(tmp_path / "elsewhere" / "file")
    _write_file(tmp_path / "link.keras", NEW)
    assert (tmp_path / "link.keras").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == NEW


def test_a_directory_is_replaced_only_on_request(tmp_path):
    _write_directory(tmp_path / "1", OLD)
    with pytest.raises(OSError, match="not empty"), files.atomic_directory(tmp_path / "1") as staging:
        (staging / "a").write_text(NEW)
    assert _read_directory(tmp_path / "1") == OLD
    assert [each.name for each in tmp_path.iterdir()] == ["1"]


@each_writer
@pytest.mark.parametrize("existing", [True, False], ids=["existing", "new"])
@pytest.mark.parametrize("call", ["fsync:1", "fsync:2", "fsync:3", "replace:1", "replace:2"])
def test_a_disk_that_is_full_at_any_call_loses_nothing(write, read, existing, call, tmp_path, monkeypatch):
    path, (name, number), calls = tmp_path / "name", call.split(":"), []
    original = getattr(os, name)
    if existing:
        write(path, OLD)

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) == int(number):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, name, fail)
        with contextlib.suppress(OSError):
            write(path, NEW)
    if len(calls) < int(number):
        assert read(path) == NEW, "no call failed"
        return
    # The last call of fsync is of the parent directory: it comes after the rename.
    renamed = write is _write_file and call == "fsync:2"
    assert [each.name for each in tmp_path.iterdir()] == (["name"] if existing or renamed else [])
    if existing or renamed:
        assert read(path) == (NEW if renamed else OLD)


@each_writer
def test_a_block_that_fails_changes_nothing(write, read, tmp_path, monkeypatch):
    path = tmp_path / "name"
    write(path, OLD)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", lambda *_: sys.exit("stopped in the middle"))
        with pytest.raises(SystemExit):
            write(path, NEW)
    assert read(path) == OLD
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


@each_writer
@pytest.mark.parametrize("existing", [True, False], ids=["existing", "new"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["fsync:1", "fsync:2", "replace:1", "replace:2"])
def test_a_kill_leaves_the_old_or_the_new(write, read, existing, moment, call, tmp_path, request):
    target = request.node.callspec.id.split("-")[-1]
    path = tmp_path / "name"
    if existing:
        write(path, OLD)
    if call == "replace:2" and not (existing and target == "directory"):
        write(path, NEW)
        assert read(path) == NEW, "there is no second rename to be killed at"
        return
    _kill_at(f"{call}:{moment}", target, path)
    left = [each.name for each in tmp_path.iterdir() if not is_staging(each)]
    assert left in ([], ["name"])
    files.remove_abandoned(tmp_path)  # what any later write does first
    assert [each.name for each in tmp_path.iterdir()] == (["name"] if path.exists() else [])
    if existing:
        assert read(path) in (OLD, NEW)
    elif path.exists():
        assert read(path) == NEW
    write(path, NEW)
    assert read(path) == NEW
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


def test_no_reader_takes_staging_for_a_version_or_checkpoint(tmp_path):
    with files.atomic_directory(tmp_path / "7"), files.atomic_file(tmp_path / "8") as staging:
        staging.write_text(NEW)
        names = [each.name for each in tmp_path.iterdir()]
        assert len(names) == 2
        assert all(is_staging(tmp_path / name) and not name.isdigit() for name in names)


def test_what_another_process_is_writing_is_not_removed(tmp_path):
    program = f"""
from pathlib import Path
from resnet_tf.core import files
with files.atomic_file(Path({str(tmp_path / "name")!r})) as staging:
    staging.write_text("theirs")
    print("ready", flush=True)
    input()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        _write_file(tmp_path / "name", "ours")
        child.communicate("go on\n", timeout=60)
    assert child.returncode == 0
    assert (tmp_path / "name").read_text() == "theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


@pytest.mark.parametrize("link", ["staging", "replaced", "entry"])
def test_staging_directories_with_links_touch_no_other_directory(link, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    directory, staging = tmp_path / "report", tmp_path / "report" / ".resnet_tf-writing-x"
    path = {"staging": staging, "replaced": staging / ".replaced", "entry": staging / ".replaced" / "1"}[link]
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "private")
    _write_file(directory / "name", NEW)
    assert [each.name for each in (tmp_path / "private").iterdir()] == ["key"]
    assert {each.name for each in directory.iterdir()} - {staging.name} == {"name"}


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    _write_file(tmp_path / "name", NEW)
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


@each_writer
def test_readers_never_see_half_of_it(write, read, tmp_path):
    """Several writers and a reader at once; a directory may be missing for the moment between two renames."""
    path, contents, stop, problems = tmp_path / "name", [f"{index} " * 5000 for index in range(3)], [], []
    write(path, contents[0])

    def keep_writing(content):
        while not stop:
            try:
                write(path, content)
            except OSError as error:  # another writer's directory came between the two renames
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    problems.append(error)

    writers = [threading.Thread(target=keep_writing, args=(content,)) for content in contents]
    for each in writers:
        each.start()
    for _ in range(300):
        try:
            found = (path if path.is_file() else path / "a").read_text()
        except FileNotFoundError:
            assert write is _write_directory
            continue
        assert found in contents
    stop.append(True)
    for each in writers:
        each.join()
    assert not problems
    assert not [each for each in tmp_path.iterdir() if is_staging(each)]


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(UserError) as caught, files.translate_write_errors(tmp_path / "x"):
        files.write_atomically(tmp_path / "x", NEW)
    advice = "make room, and start the same command again"
    assert str(caught.value) == f"cannot write '{tmp_path}/x': No space left on device; {advice}"
    assert is_full_disk(caught.value)


@pytest.mark.parametrize("name", ["needed", "below/other", "sha256.json"])
@pytest.mark.parametrize("corrupt", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_manifest_names_what_changed(tmp_path, name, corrupt):
    assert find_listed_corruption(write_listed(tmp_path, NEW)) == ""
    corrupt(tmp_path / name)
    assert re.match(r"needed|below/other|sha256\.json", find_listed_corruption(tmp_path))


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside", "below/../../outside"])
def test_files_outside_the_directory_of_a_manifest_are_not_read(tmp_path, monkeypatch, name):
    (tmp_path / "outside").write_text("")
    directory = tmp_path / "inside"
    directory.mkdir()
    write_listed(directory, NEW)
    manifest = json.loads((directory / "sha256.json").read_text())
    (directory / "sha256.json").write_text(json.dumps({name: "0" * 64} | manifest))
    monkeypatch.setattr(files, "_digest", lambda path, **_: pytest.fail(f"{path} was read"))
    assert find_listed_corruption(directory) == f"sha256.json lists {name!r}, which lies outside the directory"


def test_a_pipe_instead_of_a_file_is_not_waited_for(tmp_path):
    write_listed(tmp_path, NEW)
    (tmp_path / "needed").unlink()
    os.mkfifo(tmp_path / "needed")
    assert find_listed_corruption(tmp_path) == "needed is not a file"


@pytest.mark.parametrize("text", ["[]", "7", "{", "[" * 100_000, "\x00", "[1]", '{"needed": 1}', '{"needed": "x"}'])
def test_a_strange_manifest_is_described(tmp_path, text):
    write_listed(tmp_path, NEW)
    (tmp_path / "sha256.json").write_text(text)
    assert find_listed_corruption(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read '.*x.json': No such file or directory$"),
        (b"{", r"'.*x.json' is not JSON: Expecting"),
        (b"\xff\xfe\xfd", r"'.*x.json' is not JSON: "),
        (b"[" * 100_000, r"'.*x.json' is not JSON: "),
        (b"[1]", r"'.*x.json' is not a JSON object$"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_json(tmp_path / "x.json")


def test_json_lines_come_back(tmp_path):
    path, lines = tmp_path / "x.jsonl", [{"step": 1, "name": "é\u2028\n"}, {"step": 2}, {"step": 3}]
    assert files.read_json_lines(path) == []
    files.append_json_lines(path, lines[:1])
    files.append_json_lines(path, lines[1:])
    assert files.read_json_lines(path, _Line) == lines
    files.write_json_lines(path, lines[1:])
    assert files.read_json_lines(path) == lines[1:]


@pytest.mark.parametrize("cut", [1, 5, 13, 14])
def test_a_line_cut_short_by_a_kill_is_dropped_and_written_over(tmp_path, cut):
    path = tmp_path / "x.jsonl"
    files.append_json_lines(path, [{"step": 1}, {"step": 200}])
    path.write_bytes(path.read_bytes()[:-cut])
    assert files.read_json_lines(path) == [{"step": 1}]
    files.append_json_lines(path, [{"step": 3}])
    assert files.read_json_lines(path) == [{"step": 1}, {"step": 3}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2 of '.*x.jsonl' is not JSON"),
        ("[1]", r"line 2 of '.*x.jsonl' is not a JSON object"),
        ('{"stop": 1}', r"line 2 of '.*x.jsonl' has no 'step'"),
        ("\udcff", r"line 2 of '.*x.jsonl' is not JSON"),
    ],
)
def test_a_corrupt_line_is_named(tmp_path, line, message):
    text = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'
    (tmp_path / "x.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        files.read_json_lines(tmp_path / "x.jsonl", _Line)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_written_atomically_by_one_module(path):
    found = RAW_WRITES.findall(path.read_text())
    assert bool(found) == (path == Path(files.__file__)), found
