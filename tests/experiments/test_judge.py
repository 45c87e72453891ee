"""The judge against a server that speaks the protocol over HTTP, on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from experiments import judge
from experiments.recorded import paths
from tests.experiments import workspace

KEY = "a-key"
RESULT, TRANSCRIPT = judge.FOLDER / "local.csv", judge.FOLDER / "local.jsonl"


class Server(ThreadingHTTPServer):
    """Scores a candidate 1 where it equals the reference, else 0; `refusals` requests fail first with status 503."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.refusals = 0
        self.reply: str | None = None
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            refused = self.server.refusals > 0
            self.server.refusals -= refused
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"no such path: {self.path}"}})
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self._send(401, {"error": {"message": "wrong key"}})
        if refused:
            return self._send(503, {"error": {"message": "busy"}})
        asked = dict(line.split(": ", 1) for line in body["messages"][-1]["content"].splitlines() if ": " in line)
        same = asked["Reference answer"] == asked.get("Candidate answer")
        reply = self.server.reply or f"score: {float(same)}"
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts of two methods, of which one is right, and params.yaml that names the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["judge", "local"])
    (tmp_path / "key").write_text(KEY + "\n")
    configure(tmp_path, url=f"http://127.0.0.1:{server.server_port}/v1")
    rows = [
        {
            "id": f"q{n}",
            "type": "caption",
            "method": method,
            "budget": 0.5,
            "question": "describe .",
            "answer": f"a {n}",
            "prediction": text,
        }
        for method, right in (("full", True), ("random", False))
        for n in range(3)
        for text in [f"a {n}" if right else "a dot"]
    ]
    paths.TEXTS.parent.mkdir()
    pd.DataFrame(rows).to_parquet(paths.TEXTS)
    return tmp_path


def configure(folder: Path, **changes: Any) -> None:
    parameters = yaml.safe_load(workspace.COMMITTED.read_text())
    chosen = {"model": "judge-32b", "key_file": "key", "retries": 2, "timeout": 10.0, "workers": 2} | changes
    parameters["judge"] = {"local": chosen}
    workspace.write_parameters(folder, parameters)


def test_scores_by_method_and_a_greedy_request(server: Server, folder: Path) -> None:
    judge.main()
    scores = pd.read_csv(RESULT).set_index("method")
    assert scores["score"].to_dict() == {"full": 1.0, "random": 0.0}
    assert scores["n"].to_list() == [3, 3]
    assert all(body["temperature"] == 0 for body in server.requests)
    assert server.requests[0]["model"] == "judge-32b"
    transcript = [json.loads(line) for line in TRANSCRIPT.read_text().splitlines()]
    assert len(transcript) == 6 and transcript[0]["reply"].startswith("score")


def test_an_interrupted_run_asks_only_for_the_rest(server: Server, folder: Path) -> None:
    judge.main()
    lines = TRANSCRIPT.read_text().splitlines()
    TRANSCRIPT.write_text("\n".join(lines[:4]) + "\n" + lines[4][:30])
    server.requests.clear()
    judge.main()
    assert len(server.requests) == 2
    assert len(judge.read_transcript(TRANSCRIPT)) == 6


def test_a_busy_server_is_asked_again(server: Server, folder: Path) -> None:
    server.refusals = 2
    judge.main()
    assert len(server.requests) == 8
    assert pd.read_csv(RESULT)["n"].sum() == 6


def test_replies_without_a_score_are_counted_not_guessed(server: Server, folder: Path) -> None:
    server.reply = "The candidate is fine."
    judge.main()
    scores = pd.read_csv(RESULT)
    assert scores["no_score"].to_list() == [3, 3] and scores["n"].sum() == 0


@pytest.mark.parametrize(
    "reply, score",
    [("score: 0.5", 0.5), ("Score: 1", 1.0), ("score = .25\n", 0.25), ("score: 1.5", None), ("score: ten", None)],
)
def test_reading_a_score(reply: str, score: float | None) -> None:
    assert judge.read_score(reply) == score


def test_a_wrong_key_is_one_clear_error(server: Server, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "key").write_text("another")
    with pytest.raises(SystemExit) as stopped:
        judge.main()
    assert stopped.value.code == 1
    assert "key_file" in capsys.readouterr().err and not RESULT.exists()


def test_an_unknown_judge_is_one_clear_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["judge", "remote"])
    with pytest.raises(SystemExit) as stopped:
        judge.main()
    assert stopped.value.code == 1 and "'remote' is not in params.yaml's judge: local" in capsys.readouterr().err
