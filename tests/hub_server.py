"""A Hugging Face Hub on the loopback, as far as its client asks for one: dataset repositories.

Files of more than a few bytes go through LFS, or through Xet into a local folder where ``xet`` is
given. Faults can be switched on, to see what becomes of them.
"""

import base64
import hashlib
import json
import re
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet")  # as .gitattributes of the Hub says
WRITER, READER = "hf_writerwriterwriter", "hf_readerreaderreader"
USERS = {WRITER: "owner", READER: "reader"}


class File(NamedTuple):
    oid: str  # sha256 of a large file, git's blob hash of a small one
    size: int
    content: bytes | None  # None: large


class Repo:
    def __init__(self, *, private):
        self.private = private
        self.gated = False
        self.commits = {}  # hash -> {path: File}
        self.refs = {"main": self.commit({})}

    def commit(self, files):
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)} {time.time_ns()}".encode())
        self.commits[sha.hexdigest()] = dict(files)
        return sha.hexdigest()

    def find(self, revision):
        return self.refs.get(revision, revision if revision in self.commits else None)


class HubServer:
    """Starts at once; ``with`` stops it.

    Args:
        folder: Takes the large files.
        xet: Take them as Xet's chunks.

    Attributes:
        url: What a client calls the endpoint.
        repos: By ``owner/name``.
        asked: ``"METHOD path"`` of every request, in order.
        damage: Position of a byte of large files that is flipped when they are sent, or None.
        cut: Number of bytes after which the connection is closed on a large file, or None.
        fail: Status of the answer to requests whose path has ``failing`` in it, or None.
        echo: Answer a request that fails with the token it came with.
    """

    def __init__(self, folder, *, xet=False):
        self.store = Path(folder)
        self.store.mkdir(parents=True, exist_ok=True)
        self.xet = xet
        self.repos = {}
        self.asked = []
        self.mend()
        server = self

        class BoundHandler(Handler):
            hub = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def mend(self):
        self.damage = self.cut = self.fail = None
        self.failing, self.echo = "", False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def put(self, repo_id, folder, *, private=False):
        """A repository with the files of a folder, the large ones by LFS; returns the commit."""
        files = {}
        for path in (path for path in Path(folder).rglob("*") if path.is_file()):
            content, name = path.read_bytes(), path.relative_to(folder).as_posix()
            files[name] = _small(content)
            if path.suffix in LARGE:
                oid = hashlib.sha256(content).hexdigest()
                (self.store / oid).write_bytes(content)
                files[name] = File(oid, len(content), None)
        repo = self.repos[repo_id] = Repo(private=private)
        repo.refs["main"] = repo.commit(files)
        return repo.refs["main"]

    def files(self, repo_id, revision="main"):
        """Names in a repository."""
        repo = self.repos[repo_id]
        return sorted(repo.commits[repo.find(revision)])

    def text(self, repo_id, path, revision="main"):
        """A small file's text."""
        repo = self.repos[repo_id]
        return repo.commits[repo.find(revision)][path].content.decode()

    def copy(self, repo_id, folder):
        """All files of a repository without Xet, in a folder."""
        repo = self.repos[repo_id]
        for name, file in repo.commits[repo.refs["main"]].items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content or (self.store / file.oid).read_bytes())
        return Path(folder)

    def xet_hash(self, oid):
        """Xet's hash of the file with this sha256, from the shards that the client wrote."""
        for shard in self.store.rglob("*.mdb"):
            data, at = shard.read_bytes(), 48
            while data[at : at + 32] != b"\xff" * 32:
                flags, entries = struct.unpack_from("<II", data, at + 32)
                last = at + 48 * (1 + entries * (2 if flags >> 31 else 1))
                if flags >> 30 & 1:  # the sha256 comes last
                    if _hex(data[last : last + 32]) == oid:
                        return _hex(data[at : at + 32])
                    last += 48
                at = last
        raise LookupError(oid)


def _small(content):
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return File(oid, len(content), content)


def _hex(raw):
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


class Refusal(Exception):
    def __init__(self, status, code="", message=""):
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass

    def answer(self):
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path != "/api/agent-harnesses":  # the client's own curiosity
            self.hub.asked.append(f"{self.command} {unquote(url.path)}")
        try:
            self.auth()
            if self.hub.fail and self.hub.failing in url.path:
                raise Refusal(self.hub.fail, message="the server is unwell")
            for methods, pattern, run in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in methods.split():
                    return run(self, *map(unquote, match.groups()))
            raise Refusal(404, message=f"no route {self.command} {url.path}")
        except Refusal as no:
            token = self.headers.get("Authorization", "")
            message = f"{no.message} {token}" if self.hub.echo else no.message
            headers = {"X-Error-Code": no.code} | (
                {} if self.hub.echo else {"X-Error-Message": message}
            )
            self.send(no.status, {"error": message}, **headers)

    def send(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # Who may do what

    def auth(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user = USERS.get(token)
        if token and self.user is None and "/lfs/" not in self.path:
            raise Refusal(401, message="Invalid credentials in Authorization header")

    def repo(self, repo_id):
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and self.user != repo_id.split("/")[0]):
            raise Refusal(404 if self.user else 401, "RepoNotFound", "Repository not found")
        return repo

    def readable(self, repo_id, revision):
        repo = self.repo(repo_id)
        if repo.gated and self.user != repo_id.split("/")[0]:
            raise Refusal(403, "GatedRepo", "Access is restricted")
        sha = repo.find(revision)
        if sha is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, sha

    def writable(self, repo_id):
        repo = self.repo(repo_id)
        if self.user != repo_id.split("/")[0]:
            raise Refusal(403 if self.user else 401, message="You have no write permission")
        return repo

    # Repositories

    def create(self):
        asked = json.loads(self.body)
        if self.user is None:
            raise Refusal(401, message="Log in to create a repository")
        repo_id = f"{asked['organization'] or self.user}/{asked['name']}"
        if not repo_id.startswith(f"{self.user}/"):
            raise Refusal(403, message=f"You have no right to create {repo_id}")
        known = repo_id in self.hub.repos
        if not known:
            private = asked.get("private") or asked.get("visibility") == "private"
            self.hub.repos[repo_id] = Repo(private=private)
        url = f"{self.hub.url}/datasets/{repo_id}"
        self.send(409 if known else 200, {"url": url, "name": repo_id, "id": repo_id})

    def validate_yaml(self):
        content = json.loads(self.body)["content"]
        sound = content.startswith("---\n") and "\n---\n" in content
        errors = [] if sound else [{"message": "no metadata"}]
        self.send(200 if sound else 400, {"errors": errors, "warnings": []})

    def info(self, repo_id, revision="main"):
        repo, sha = self.readable(repo_id, revision)
        names = [{"rfilename": name} for name in repo.commits[sha]]
        known = {"id": repo_id, "sha": sha, "private": repo.private, "siblings": names}
        known["xetEnabled"] = self.hub.xet
        self.send(200, known | {"gated": "manual" if repo.gated else False, "tags": []})

    def tree(self, repo_id, revision):
        repo, sha = self.readable(repo_id, revision)
        entries = []
        for path, file in repo.commits[sha].items():
            entry = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
            if file.content is None:
                entry["lfs"] = {"oid": file.oid, "size": file.size, "pointerSize": 134}
                if self.hub.xet:
                    entry["xetHash"] = self.hub.xet_hash(file.oid)
            entries.append(entry)
        self.send(200, entries)

    def all_refs(self, repo_id):
        told = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
        for name, sha in self.repo(repo_id).refs.items():
            kind = "pullRequests" if name.startswith("refs/pr/") else "branches"
            told[kind].append({"name": name, "ref": name, "targetCommit": sha})
        self.send(200, told)

    def ref(self, repo_id, kind, name):
        repo = self.writable(repo_id)
        asked = json.loads(self.body or b"{}")
        target = asked["tag"] if kind == "tag" else name
        if target in repo.refs:
            raise Refusal(409, message=f"{target} exists")
        start = name if kind == "tag" else asked.get("startingPoint", "main")
        repo.refs[target] = repo.find(start)
        self.send(200, {})

    # Writing

    def preupload(self, repo_id, revision):
        repo = self.writable(repo_id)
        sha = repo.find(revision)
        if sha is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        answers = []
        for asked in json.loads(self.body)["files"]:
            mode = "lfs" if asked["path"].endswith(LARGE) else "regular"
            known = repo.commits[sha].get(asked["path"])
            answers.append({
                "path": asked["path"], "uploadMode": mode, "shouldIgnore": False,
                "oid": known and known.oid,
            })  # fmt: skip
        self.send(200, {"files": answers})

    def lfs_batch(self, repo_id):
        self.writable(repo_id)
        asked, objects = json.loads(self.body), []
        xet = self.hub.xet and "xet" in asked["transfers"]  # clients before 2 ask here
        for wanted in asked["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if not xet and not (self.hub.store / wanted["oid"]).exists():
                href = f"{self.hub.url}/lfs/{wanted['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(answer)
        self.send(200, {"transfer": "xet" if xet else "basic", "objects": objects})

    def lfs_put(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        (self.hub.store / oid).write_bytes(self.body)
        self.send(200)

    def lfs_verify(self, _):
        self.send(200, {})

    def xet_token(self, repo_id, kind, _):
        (self.writable if kind == "write" else self.repo)(repo_id)
        given = {
            "casUrl": f"local://{self.hub.store}",
            "accessToken": "xet",
            "exp": int(time.time()) + 3600,
        }
        self.send(200, given, **{
            "X-Xet-Cas-Url": given["casUrl"], "X-Xet-Access-Token": given["accessToken"],
            "X-Xet-Token-Expiration": str(given["exp"]),
        })  # fmt: skip

    def commit(self, repo_id, revision):
        repo = self.writable(repo_id)
        start = repo.find(revision)
        if start is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = dict(repo.commits[start])
        for line in self.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header" and value.get("parentCommit") not in (None, start):
                raise Refusal(412, message="A commit has happened since")
            if key == "file":
                files[value["path"]] = _small(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                files[value["path"]] = File(value["oid"], value["size"], None)
            elif key == "deletedFile":
                del files[value["path"]]
        sha, number = repo.commit(files), 1 + sum(ref.startswith("refs/pr") for ref in repo.refs)
        request = "create_pr" in self.query
        repo.refs[f"refs/pr/{number}" if request else revision] = sha
        url = f"{self.hub.url}/datasets/{repo_id}"
        done = {"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}"}
        self.send(
            200, done | ({"pullRequestUrl": f"{url}/discussions/{number}"} if request else {})
        )

    # Reading

    def resolve(self, repo_id, revision, path):
        repo, sha = self.readable(repo_id, revision)
        file = repo.commits[sha].get(path)
        commit = {"X-Repo-Commit": sha}
        if file is None:
            missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.send(404, **commit | missing)
        elif file.content is not None:
            self.send(200, file.content, ETag=f'"{file.oid}"', **commit)
        else:
            linked = {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(file.size)}
            if self.hub.xet:
                route = f"{self.hub.url}/api/datasets/{repo_id}/xet-read-token/{sha}"
                linked["X-Xet-Hash"] = self.hub.xet_hash(file.oid)
                linked["Link"] = f'<{route}>; rel="xet-auth"'
            # Another host name: the client follows redirects to its own host and loses the headers.
            location = f"http://localhost:{self.hub.port}/lfs/{file.oid}"
            self.send(302, Location=location, **commit | linked)

    def lfs_get(self, oid):
        content = (self.hub.store / oid).read_bytes()
        if self.hub.damage is not None:
            at = self.hub.damage
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content) if self.hub.cut is None else max(start, self.hub.cut)
        self.wfile.write(content[start:end])
        if end < len(content):
            self.close_connection = True

    def whoami(self):
        if self.user is None:
            raise Refusal(401, message="Log in")
        self.send(200, {"name": self.user, "type": "user", "orgs": [], "auth": {}})


_ID = r"([^/]+/[^/]+?)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("GET", rf"/api/datasets/{_ID}", Handler.info),
    ("GET", rf"/api/datasets/{_ID}/revision/([^/]+)", Handler.info),
    ("GET", rf"/api/datasets/{_ID}/tree/([^/]+)", Handler.tree),
    ("GET", rf"/api/datasets/{_ID}/refs", Handler.all_refs),
    ("POST", rf"/api/datasets/{_ID}/(tag|branch)/([^/]+)", Handler.ref),
    ("POST", rf"/api/datasets/{_ID}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"/api/datasets/{_ID}/commit/([^/]+)", Handler.commit),
    ("GET", rf"/api/datasets/{_ID}/xet-(read|write)-token/([^/]+)", Handler.xet_token),
    ("POST", rf"/datasets/{_ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", "/lfs/([0-9a-f]{64})", Handler.lfs_put),
    ("POST", "/lfs/([0-9a-f]{64})/verify", Handler.lfs_verify),
    ("GET HEAD", "/lfs/([0-9a-f]{64})", Handler.lfs_get),
    ("GET HEAD", rf"/datasets/{_ID}/resolve/([^/]+)/(.+)", Handler.resolve),
]
