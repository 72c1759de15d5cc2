"""Downloads from a local server that breaks connections, changes files, or sends no parts of files."""

import hashlib
import http.client
import io
import socket
import urllib.request

import numpy as np
import pytest
from local_server import file_server

from resnet_tf.core import downloads
from resnet_tf.core.errors import UserError

CONTENT = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()
OTHER = CONTENT[::-1]
PATH = "/models/w.pth"


@pytest.fixture
def server():
    with file_server() as running:
        running.behavior.files[PATH] = CONTENT
        yield running


@pytest.fixture
def part(tmp_path):
    return tmp_path / "w.pth.part"


def _download(server, part):
    return downloads.download(f"{server.url}{PATH}", part, name="w.pth", timeout=5)


def _interrupt(server, part, *, after=20_000, **behavior):
    """Leave a part of the file, as a process does that is killed: the server breaks each connection."""
    vars(server.behavior).update(cut_after=after, ranges=False, **behavior)
    with pytest.raises((OSError, http.client.HTTPException)):
        _download(server, part)
    assert part.stat().st_size == after
    vars(server.behavior).update(cut_after=None, ranges=True)
    server.asked.clear()


def test_a_file_is_downloaded_whole(server, part, tmp_path):
    assert _download(server, part) == ""
    assert part.read_bytes() == CONTENT
    assert server.asked == [(PATH, None)]
    assert list(tmp_path.iterdir()) == [part]


def test_an_interrupted_download_continues(server, part):
    _interrupt(server, part)
    _download(server, part)
    assert part.read_bytes() == CONTENT
    assert server.asked == [(PATH, "bytes=20000-")]


def test_broken_connections_are_opened_again_while_they_bring_bytes(server, part):
    server.behavior.cut_after = 20_000
    _download(server, part)
    assert part.read_bytes() == CONTENT
    assert server.asked == [(PATH, None), (PATH, "bytes=20000-"), (PATH, "bytes=40000-")]


def test_responses_in_chunks_are_continued_after_an_interruption(server, part):
    server.behavior.chunked, server.behavior.cut_after = True, 20_000
    assert _download(server, part) == ""
    assert part.read_bytes() == CONTENT
    assert server.asked == [(PATH, None), (PATH, "bytes=20000-"), (PATH, "bytes=40000-")]
    server.behavior.cut_after = 0
    with pytest.raises(downloads.Incomplete, match="the connection ended before the file did"):
        _download(server, part)


def test_a_file_that_has_changed_is_downloaded_again(server, part):
    _interrupt(server, part)
    server.behavior.files[PATH] = OTHER
    _download(server, part)
    assert part.read_bytes() == OTHER


def test_a_server_that_ignores_the_validator_does_not_mix_two_files(server, part):
    _interrupt(server, part)
    server.behavior.files[PATH] = OTHER
    server.behavior.checks_validator = False
    _download(server, part)
    assert part.read_bytes() == OTHER
    assert server.asked == [(PATH, "bytes=20000-"), (PATH, None)]


def test_a_file_that_became_shorter_is_downloaded_again(server, part):
    _interrupt(server, part)
    server.behavior.files[PATH] = OTHER[:100]
    server.behavior.checks_validator = False
    _download(server, part)
    assert part.read_bytes() == OTHER[:100]


@pytest.mark.parametrize("lacks", ["ranges", "validator"])
def test_servers_without_ranges_or_validators_start_again(server, part, lacks):
    _interrupt(server, part, validator=lacks != "validator")
    setattr(server.behavior, lacks, False)
    _download(server, part)
    assert part.read_bytes() == CONTENT


def test_a_part_of_another_url_or_of_unknown_origin_is_not_continued(server, part):
    _interrupt(server, part)
    state = downloads.state_of(part)
    for text in (
        "{",
        "[]",
        '{"url": 1}',
        state.read_text().replace(PATH, "/other"),
        state.read_text().replace('"', ""),
    ):
        part.write_bytes(OTHER[:20_000])
        state.write_text(text)
        server.asked.clear()
        _download(server, part)
        assert part.read_bytes() == CONTENT
        assert server.asked == [(PATH, None)]


def test_a_complete_part_needs_no_request(server, part):
    _interrupt(server, part)
    part.write_bytes(CONTENT)
    _download(server, part)
    assert server.asked == []


def test_the_stated_digest_survives_a_redirect_and_an_interruption(server, part):
    digest = hashlib.sha256(CONTENT).hexdigest()
    server.behavior.redirects["/hub"] = f"{server.url}{PATH}", {downloads.STATED_DIGEST: f'"{digest}"'}
    url = f"{server.url}/hub"
    assert downloads.download(url, part, name="w", timeout=5) == digest
    server.behavior.redirects["/hub"] = f"{server.url}{PATH}", {downloads.STATED_DIGEST: '"0123abcd"'}
    assert downloads.download(url, part, name="w", timeout=5) == "", "a hash of Git is no SHA-256"


def test_other_schemes_are_refused(server, part, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(UserError, match="is not an http or https URL"):
        downloads.download((tmp_path / "secret").as_uri(), part, name="w", timeout=5)
    for target, message in (((tmp_path / "secret").as_uri(), "not allowed"), ("ftp://127.0.0.1/x", "not protected")):
        server.behavior.redirects[PATH] = target, {}
        with pytest.raises(OSError, match=message):
            _download(server, part)
    assert not part.exists()
    request = urllib.request.Request("https://127.0.0.1/x")
    with pytest.raises(OSError, match="not protected"):
        downloads._Redirects().redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/x")


def test_errors_of_the_server_and_of_the_network_are_raised(server, part):
    with pytest.raises(OSError, match="404"):
        downloads.download(f"{server.url}/none", part, name="w", timeout=5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        downloads.download(f"http://127.0.0.1:{silent.getsockname()[1]}/x", part, name="w", timeout=0.2)
    server.behavior.cut_after = 0
    with pytest.raises(downloads.Incomplete, match="ended after 0 of 50,000 bytes"):
        _download(server, part)


@pytest.mark.parametrize(("total", "of"), [(200_000_000, " of 200.0 MB (18%)"), (0, "")])
def test_progress_states_size_and_speed(total, of):
    log, now = io.StringIO(), 100.0
    progress = downloads._progress("w.pth", total, 20_000_000, stream=log, clock=lambda: now)
    now += 4
    progress.done += 16_000_000
    progress.report()
    assert log.getvalue() == f"w.pth: 36.0 MB{of}, 4.0 MB/s\n"
