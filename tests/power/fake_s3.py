"""As much of S3 as libreplica needs, in memory and on 127.0.0.1: GET (with Range), HEAD, PUT (If-None-Match: * is
honoured), LIST (version 2), DELETE and multi-object delete, path-style. Signatures are not checked. It never forgets
what it acknowledged.

While a recording runs each PUT is written into the recorder's log, once when it has been read and once when it takes
effect: so what the store held at the moment of a power loss is known exactly. While the file `down` exists all answers
are 503.
"""
import email.utils
import hashlib
import os
import socket
import socketserver
import threading
import urllib.parse
import xml.etree.ElementTree as tree
from xml.sax.saxutils import escape

from recorder import DELETE, PUT, PUT_BEGINS

BUCKET = "bucket"


class FakeS3:
    def __init__(self, down):
        self.down = down
        self.objects = {}  # key (without the bucket) -> bytes
        self.log = None    # a recorder.Log while a recording runs
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.hold = None   # (text, other, seconds): PUTs of keys with `text` wait for one with `other`, but not longer
        self.slow = None   # a random.Random: now and then a PUT takes some time
        self.limit = None  # bytes: larger PUTs are refused, with 413 as proxies do, or as `too_large` says
        self.too_large = (413, "")
        self.fail = None   # asked for each request: fail(method, target) is None, (status, code, headers) or
                           # "drop", which ends the connection
        self.refused = []  # keys and sizes of such PUTs, in their order
        self.number = 0
        self.arrived = []  # keys of PUTs since the recording began, in their order
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Connection, bind_and_activate=False)
        self.server.daemon_threads = self.server.allow_reuse_address = True
        self.server.store = self
        self.server.server_bind()
        self.server.server_activate()
        self.endpoint = "http://127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, key, data, if_absent):
        """The status of the answer."""
        with self.lock:
            if self.limit is not None and len(data) > self.limit:
                self.refused.append((key, len(data)))
                return self.too_large[0]
            self.number += 1
            number = self.number
            log = self.log
            if log:
                with log:
                    log.append(PUT_BEGINS, offset=number, path=key, data=data)
            if self.hold and self.hold[0] in key:
                _, other, seconds = self.hold
                begun = len(self.arrived)
                self.changed.wait_for(lambda: any(other in k for k in self.arrived[begun:]), seconds)
            elif self.slow and self.slow.random() < 0.2:
                self.changed.wait(self.slow.choice((0.005, 0.03)))
            if if_absent and key in self.objects:
                return 412
            self.objects[key] = data
            self.arrived.append(key)
            self.changed.notify_all()
            if log and log is self.log:
                with log:
                    log.append(PUT, offset=number, path=key, data=data)
        return 200

    def delete(self, key):
        with self.lock:
            self.objects.pop(key, None)
            if self.log:
                with self.log:
                    self.log.append(DELETE, path=key)

    def list(self, query):
        """The XML of a listing."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        most = int(query.get("max-keys", "1000"))
        with self.lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix))
            sizes = {key: len(self.objects[key]) for key in keys}
        contents, folders = [], []
        last = ""
        truncated = False
        for key in keys:
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key[:end + 1] if end >= 0 else key
            if name <= after or name == last:
                continue
            if len(contents) + len(folders) == most:
                truncated = True
                break
            last = name
            (folders if end >= 0 else contents).append(name)
        parts = ["<Contents><Key>%s</Key><Size>%d</Size></Contents>" % (escape(key), sizes[key]) for key in contents]
        parts += ["<CommonPrefixes><Prefix>%s</Prefix></CommonPrefixes>" % escape(name) for name in folders]
        if truncated:
            parts.append("<NextContinuationToken>%s</NextContinuationToken>" % escape(last))
        return "<ListBucketResult><IsTruncated>%s</IsTruncated>%s</ListBucketResult>" % (
            str(truncated).lower(), "".join(parts))


class _Connection(socketserver.BaseRequestHandler):
    """One client's connection; http.server would take most of the test's time."""

    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.request.makefile("rb")

    def handle(self):
        try:
            while self.one():
                pass
        except (OSError, ValueError):
            pass  # the client died: it is what this is for

    def one(self):
        """One request; False at the end of the connection."""
        line = self.input.readline().split()
        if len(line) != 3:
            return False
        method, target = line[0].decode(), line[1].decode()
        headers = {}
        while True:
            header = self.input.readline().strip()
            if not header:
                break
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", "0"))
        if headers.get("expect", "").lower() == "100-continue":
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.input.read(size)
        if len(body) != size:
            return False
        store = self.server.store
        failure = store.fail and store.fail(method, target)
        if failure == "drop":
            return False
        if failure:
            status, data, more = _error(*failure[:2])
            more.update(failure[2])
        elif os.path.exists(store.down):
            status, data, more = _error(503, "ServiceUnavailable")
        else:
            status, data, more = self.answer(store, method, target, headers, body)
        head = "HTTP/1.1 %d X\r\nDate: %s\r\nContent-Length: %d\r\n" % (
            status, email.utils.formatdate(usegmt=True), more.pop("size", len(data)))
        head += "".join("%s: %s\r\n" % item for item in more.items()) + "\r\n"
        self.request.sendall(head.encode() + (b"" if method == "HEAD" else data))
        return True

    @staticmethod
    def answer(store, method, target, headers, body):
        """(status, body, headers)"""
        path, _, query_text = target.partition("?")
        query = dict(urllib.parse.parse_qsl(query_text, keep_blank_values=True))
        bucket, _, key = urllib.parse.unquote(path)[1:].partition("/")
        if bucket != BUCKET:
            return _error(404, "NoSuchBucket")
        if not key:
            if method == "GET":
                return 200, store.list(query).encode(), {"Content-Type": "application/xml"}
            if method == "POST" and "delete" in query:
                for node in tree.fromstring(body).iter():
                    if node.tag.rsplit("}", 1)[-1] == "Key":
                        store.delete(node.text)
                return 200, b"<DeleteResult></DeleteResult>", {}
            return (200, b"", {}) if method in ("HEAD", "PUT") else _error(501, "NotImplemented")
        if method == "PUT":
            status = store.put(key, body, headers.get("if-none-match") == "*")
            if status == store.too_large[0]:
                return _error(*store.too_large)
            return _error(412, "PreconditionFailed") if status == 412 else (200, b"", _etag(body))
        if method == "DELETE":
            store.delete(key)
            return 204, b"", {}
        with store.lock:
            data = store.objects.get(key)
        if data is None:
            return _error(404, "NoSuchKey")
        if method == "HEAD":
            return 200, b"", dict(_etag(data), size=len(data))
        if method != "GET":
            return _error(501, "NotImplemented")
        if "range" not in headers:
            return 200, data, _etag(data)
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        if first >= len(data):
            return _error(416, "InvalidRange")
        extent = {"Content-Range": "bytes %d-%d/%d" % (first, last, len(data))}
        return 206, data[first:last + 1], dict(_etag(data), **extent)


def _etag(data):
    return {"ETag": '"%s"' % hashlib.md5(data).hexdigest()}


def _error(status, code):
    text = "<Error><Code>%s</Code><Message>%s</Message></Error>" % (code, code)
    return status, text.encode(), {"Content-Type": "application/xml"}
