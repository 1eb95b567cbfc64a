"""As much of a W&B server as a run needs: it keeps the rows, and can be told to misbehave."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "mmtok", "entity": {"id": "e", "name": "someone"}}


class Server:
    """Answers on a port of the loopback; `rows` is the history of the one run it knows.

    Args:
        mood: "good"; a status that every request gets; or "hangs".
    """

    def __init__(self, mood: str = "good") -> None:
        self.mood = mood
        self.rows: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                while outer.mood == "hangs":
                    time.sleep(0.05)
                good = outer.mood == "good"
                answer = json.dumps(outer.answer(self.path, body) if good else {}).encode()
                self.send_response(200 if good else int(outer.mood))
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_PUT = do_POST

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None: ...  # W&B leaves without a word

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.mood = "500"
        self.http.shutdown()
        self.http.server_close()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if "file_stream" in path:
            chunk = json.loads(body).get("files", {}).get("wandb-history.jsonl")
            if chunk:
                self.rows[chunk["offset"] :] = [json.loads(line) for line in chunk["content"]]
            return {}
        if not path.endswith("/graphql"):
            return {}
        asked = json.loads(body)
        name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        given = asked.get("variables") or {}
        bucket = {
            "id": "x", "name": given.get("name"), "displayName": "run", "config": "{}", "project": PROJECT,
            "historyLineCount": len(self.rows), "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]",
            "summaryMetrics": json.dumps(self.rows[-1] if self.rows else {}), "wandbConfig": '{"t": 1}', "tags": [],
            "historyTail": json.dumps([json.dumps(row) for row in self.rows[-1:]]),
        }  # fmt: skip
        files = [{"name": file, "uploadUrl": f"{self.url}/{file}"} for file in given.get("files") or []]
        answers: dict[str, Any] = {
            "RunResumeStatus": {"model": {**PROJECT, "bucket": bucket if self.rows else None}},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": not self.rows}},
            "CreateRunFiles": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}},
            "Viewer": {"viewer": {"id": "v", "entity": "someone", "flags": "{}", "teams": {"edges": []}}},
        }
        return {"data": answers.get(name[1] if name else "", {})}
