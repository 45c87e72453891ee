"""A stand-in for a judge that speaks the protocol over HTTP, on this machine."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """The score is 1 where the answer ends in the right number, else .5."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        lines = dict(line.split(": ", 1) for line in body["messages"][1]["content"].splitlines() if ": " in line)
        same = lines["standard answer"] == lines["model's answer"]
        message = {
            "role": "assistant",
            "content": f"It is {'right' if same else 'near'}. Score: {1.0 if same else 0.5}",
        }
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        data = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *args: object) -> None:
        pass
