"""Server on 127.0.0.1 that speaks the protocol of the Hugging Face Hub, for its real client.

Covered are the routes that the client uses for models: resolution of files with their hashes, missing repositories,
revisions and files, large files behind a redirect, ranges, lists of files, and commits with regular and large files.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Collection, Iterator

LARGE = (".safetensors", ".bin", ".pth")  # stored by SHA-256 as in Git LFS


@dataclasses.dataclass
class Repository:
    """Commits of a repository: files by commit, and commits by the name of a branch or tag."""

    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    refs: dict[str, str] = dataclasses.field(default_factory=dict)
    private: bool = False

    def commit(self, branch: str, files: dict[str, bytes], deleted: Collection[str] = ()) -> str:
        """Add files to a branch, delete others, and return the hash of the commit."""
        before = self.commits.get(self.refs.get(branch, ""), {})
        content = {path: each for path, each in before.items() if path not in deleted} | files
        sha = hashlib.sha1(repr((len(self.commits), sorted(content))).encode()).hexdigest()
        self.commits[sha] = content
        self.refs[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a hash."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)


class HubServer(http.server.ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: `user/repo` -> its commits.
        blobs: SHA-256 -> content of large files.
        asked: method and path of each request.
        cut_after: bytes after which the transfer of a large file is broken, once for each number in the list.
        status: HTTP status of every answer; 0 for the right one.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.ranges: list[str | None] = []
        self.cut_after: list[int] = []
        self.status = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main", deleted: Collection[str] = ()) -> str:
        """Commit files to a repository, which is created, and return the hash of the commit."""
        repository = self.repositories.setdefault(name, Repository())
        self.blobs |= {_sha256(content): content for path, content in files.items() if path.endswith(LARGE)}
        return repository.commit(branch, files, deleted)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        path = urllib.parse.urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        if self.server.status:
            self._answer(self.server.status, b"{}")
            return
        for pattern, serve in _ROUTES:
            if match := re.fullmatch(pattern, path):
                serve(self, *map(urllib.parse.unquote, match.groups()), body=body)
                return
        self._answer(404, b'{"error": "no such route"}')

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _error(self, code: str, status: int = 404) -> None:
        self._answer(status, b"{}", X_Error_Code=code, X_Error_Message=code)

    def _file(self, name: str, revision: str, path: str, *, body: bytes) -> None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self._error("RepoNotFound", 401)
            return
        if repository.private:
            self._error("GatedRepo", 403)
            return
        commit = repository.resolve(revision)
        if commit is None:
            self._error("RevisionNotFound")
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self._answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        if path.endswith(LARGE):
            sha = _sha256(content)
            self._answer(
                302,
                X_Repo_Commit=commit,
                X_Linked_Etag=f'"{sha}"',
                X_Linked_Size=str(len(content)),
                # Another host, as that of the storage is: the client follows other redirects already for the headers.
                Location=f"http://localhost:{self.server.server_port}/blobs/{sha}",
            )
            return
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self._answer(200, content, ETag=f'"{git}"', X_Repo_Commit=commit)

    def _blob(self, sha: str, *, body: bytes) -> None:
        content = self.server.blobs.get(sha)
        if self.command == "PUT":
            self.server.blobs[sha] = body
            self._answer(200)
            return
        if content is None:
            self._answer(404)
            return
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        first = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked else 0
        part = content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{sha}"')
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part[: self.server.cut_after.pop(0)] if self.server.cut_after else part)
            self.close_connection = True

    def _create(self, *, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "forbidden":
            self._answer(403, b'{"error": "no right to create a model"}')
            return
        exists = name in self.server.repositories
        if not exists:
            self.server.add(name, {".gitattributes": b""})
            self.server.repositories[name].visibility = asked.get("visibility", asked.get("private"))
        self._json({"url": f"{self.server.url}/{name}", "name": name}, 409 if exists else 200)

    def _branch(self, name: str, branch: str, *, body: bytes) -> None:
        repository = self.server.repositories[name]
        if branch in repository.refs:
            self._json({}, 409)
            return
        repository.refs[branch] = repository.refs["main"]
        self._json({})

    def _yaml(self, *, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def _preupload(self, name: str, revision: str, *, body: bytes) -> None:
        files = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, name: str, *, body: bytes) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.server.url}/blobs/{each['oid']}", "header": {}}}}
            for each in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _tree(self, name: str, revision: str, *, body: bytes) -> None:
        repository = self.server.repositories[name]
        files = repository.commits[repository.resolve(revision)]
        self._json([{"type": "file", "path": path, "size": len(each), "oid": ""} for path, each in files.items()])

    def _commit(self, name: str, revision: str, *, body: bytes) -> None:
        files, deleted = {}, []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                deleted.append(value["path"])
        sha = self.server.add(name, files, branch=revision, deleted=deleted)
        self._json({"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    def log_message(self, format: str, *args: object) -> None:
        pass


_REPOSITORY = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"/api/repos/create", _Handler._create),
    (r"/api/validate-yaml", _Handler._yaml),
    (rf"/api/models/{_REPOSITORY}/branch/([^/]+)", _Handler._branch),
    (rf"/api/models/{_REPOSITORY}/preupload/([^/]+)", _Handler._preupload),
    (rf"/api/models/{_REPOSITORY}/tree/([^/]+)", _Handler._tree),
    (rf"/api/models/{_REPOSITORY}/commit/([^/]+)", _Handler._commit),
    (rf"/{_REPOSITORY}\.git/info/lfs/objects/batch", _Handler._batch),
    (r"/blobs/([0-9a-f]+)", _Handler._blob),
    (rf"/{_REPOSITORY}/resolve/([^/]+)/(.+)", _Handler._file),
)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a server within the block."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
