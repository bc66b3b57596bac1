"""The API of the sample app: notes in PostgreSQL.

GET /notes      all notes, as JSON
PUT /notes/ID   writes one, again and again with the same effect
GET /host       which container answered
GET /healthz    200 when the database answers
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

PORT = 8000
local = threading.local()


def query(sql, args=(), patience=30.0):
    """Runs one statement; a database that is only starting is waited for."""
    until = time.monotonic() + patience
    while True:
        try:
            if getattr(local, "connection", None) is None:
                local.connection = psycopg2.connect(os.environ["DATABASE"], connect_timeout=2)
                local.connection.autocommit = True
            with local.connection.cursor() as cursor:
                cursor.execute(sql, args)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.OperationalError:
            local.connection = None
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            query("SELECT 1", patience=0.0)
            self.answer(200, {"ok": True})
        elif self.path == "/host":
            self.answer(200, {"host": socket.gethostname()})
        elif self.path == "/notes":
            self.answer(200, dict(query("SELECT id, text FROM notes ORDER BY id")))
        else:
            self.answer(404, {"error": "there is /notes, /host and /healthz"})

    def do_PUT(self):
        prefix, _, note = self.path.rpartition("/")
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if prefix != "/notes" or not note:
            return self.answer(404, {"error": "PUT /notes/ID"})
        query(
            "INSERT INTO notes VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET text = excluded.text",
            (note, text),
        )
        self.answer(200, {note: text})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def serve():
    # One at a time: two that create the same table at once collide, whatever IF NOT EXISTS says.
    query("SELECT pg_advisory_lock(1)")
    query("CREATE TABLE IF NOT EXISTS notes (id text PRIMARY KEY, text text NOT NULL)")
    query("SELECT pg_advisory_unlock(1)")
    server = Server(("0.0.0.0", PORT), Handler)

    def stop(*_):
        # The edge hears of the end at the same time: what it still sends is answered first.
        threading.Timer(2.0, server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    if "--check" in sys.argv:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=1).read()
    else:
        serve()
