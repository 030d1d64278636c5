"""A small export in the challenge's layout, and a stand-in for the hub that serves it over HTTP."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from fairway.data.ledger import encode_document
from fairway.data.shards import shard_name, write_shard

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_export(root, tokenizer, texts, *, name="fineweb10B_sp1024", val=4, train_shards=3, sidecars=False):
    """Write ``texts`` as a published export below ``root`` and return its manifest."""
    folder = root / "datasets" / name
    (root / "tokenizers").mkdir(parents=True, exist_ok=True)
    (root / "tokenizers" / "toy.model").write_bytes(tokenizer.model)
    encoded = [encode_document(tokenizer, text) for text in texts]
    head = np.concatenate([document.tokens for document in encoded[:val]])
    write_shard(folder / shard_name("val", 0, prefix="fineweb_"), head)
    if sidecars:
        costs = np.concatenate([document.byte_costs for document in encoded[:val]])
        write_shard(folder / shard_name("val", 0, sidecar=True, prefix="fineweb_"), costs)
    rest = np.concatenate([document.tokens for document in encoded[val:]])
    for index, part in enumerate(np.array_split(rest, train_shards)):
        write_shard(folder / shard_name("train", index, prefix="fineweb_"), part)
    stats = {
        "docs_total": len(texts), "docs_val": val, "docs_train": len(texts) - val,
        "files_total": train_shards + 1, "files_val": 1, "files_train": train_shards,
        "tokens_total": len(head) + len(rest), "tokens_val": len(head), "tokens_train": len(rest),
    }  # fmt: skip
    entry = {"name": name, "tokenizer_name": "toy", "vocab_size": tokenizer.vocab_size, "bos_id": 1, "stats": stats}
    if sidecars:
        entry["val_bytes_glob"] = f"datasets/{name}/fineweb_val_bytes_*.bin"
    manifest = {
        "version": "10B", "num_docs": len(texts), "num_val_docs": val, "shuffle_seed": None, "datasets": [entry],
        "tokenizers": [{"name": "toy", "kind": "sentencepiece_bpe", "model_path": "tokenizers/toy.model"}],
    }  # fmt: skip
    (root / "manifest.json").write_text(json.dumps(manifest))
    return manifest


class Hub:
    """What the stand-in serves and how it misbehaves."""

    def __init__(self, root, repository):
        self.root, self.repository = root, repository
        self.requests = []
        self.break_after = {}
        self.down_after_break = False
        self.corrupt = set()
        self.status = None
        self.endpoint = ""

    def gets(self, part):
        return [request for request in self.requests if request[0] == "GET" and part in request[1]]


@contextmanager
def serving(root, repository):
    """A hub on a loopback port with one repository whose files lie below ``root``."""
    hub = Hub(root, repository)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.hub.status is not None:
            return self.fail(self.hub.status, None)
        start = f"/datasets/{self.hub.repository}/resolve/"
        if not self.path.startswith(start):
            return self.fail(404, "RepoNotFound")
        revision, _, name = self.path[len(start) :].partition("/")
        if revision not in ("main", COMMIT):
            return self.fail(404, "RevisionNotFound")
        file = self.hub.root / name.partition("?")[0]
        if not file.is_file():
            return self.fail(404, "EntryNotFound")
        return self.send(file.name, file.read_bytes(), body)

    def fail(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, name, content, body):
        etag = hashlib.sha256(content).hexdigest()
        if name in self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = self.headers.get("Range")
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        cut = self.hub.break_after.pop(name, None)
        if cut is None:
            self.wfile.write(content[first:])
            return
        self.wfile.write(content[first : first + cut])
        self.wfile.flush()
        self.close_connection = True
        if self.hub.down_after_break:
            self.hub.status = 503
