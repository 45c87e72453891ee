"""A language model scores free-form texts: `python -m experiments.judge NAME`, after `python -m experiments.free_form`.

NAME is an entry of the section `judge` of params.yaml: a model behind an OpenAI-compatible endpoint. It is asked once
for each text of results/free_form.parquet, at temperature 0. Every reply goes to results/judge/NAME.jsonl as it comes;
a later run asks only for what is missing there, so an interrupted run goes on, and another model or another text is
asked anew. Writes results/judge/NAME.csv: the mean score by type of text, method and budget, and how many replies held
no score.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import openai
import pandas as pd
from tqdm import tqdm

from analysis.significance import mean_intervals
from experiments import stage
from experiments.parameters.load import Parameters
from experiments.parameters.sections import Judge
from experiments.recorded import paths
from experiments.recorded.cells import write_text

FOLDER = Path("results/judge")
MAX_TOKENS = 64
INSTRUCTION = (
    "You compare a candidate answer to a question about an image with the reference answer, which is right. Judge only "
    "whether the candidate states the same facts, not its wording or order. Reply with one line, `score: x`, where x "
    "is a number from 0 (all wrong or empty) to 1 (all facts of the reference, and no others)."
)
_SCORE = re.compile(r"score\s*[:=]\s*([01](?:\.\d+)?|\.\d+)", re.IGNORECASE)


class JudgeError(ValueError):
    """The judge cannot be asked; the message says what to change. Replies that came stay in the transcript."""


def request(question: str, reference: str, candidate: str, model: str) -> dict[str, Any]:
    """The body of one chat completion: greedy, a line long."""
    asked = f"Question: {question}\nReference answer: {reference}\nCandidate answer: {candidate}"
    messages = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": asked}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}


def digest(body: dict[str, Any]) -> str:
    """What a reply is kept under: SHA-256 (hex) of the whole request."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_score(reply: str) -> float | None:
    """The score in a reply, in 0..1; None where it holds none, or one out of range."""
    found = _SCORE.search(reply)
    score = float(found.group(1)) if found else None
    return score if score is not None and score <= 1 else None


def read_transcript(path: Path) -> dict[str, str]:
    """Replies by digest. The last line may be cut off, where a run was stopped while it wrote: it is asked again."""
    replies: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        replies[entry["digest"]] = entry["reply"]
    return replies


def ask_all(bodies: list[dict[str, Any]], client: openai.OpenAI, workers: int, transcript: Path) -> dict[str, str]:
    """Replies to all requests by digest; those missing in the transcript are asked for and added to it.

    Raises:
        JudgeError: the endpoint refuses, or is not there after all tries.
    """
    replies = read_transcript(transcript)
    missing = {digest(body): body for body in bodies if digest(body) not in replies}
    transcript.parent.mkdir(parents=True, exist_ok=True)
    with transcript.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(workers) as pool:
        if lines.tell() and not transcript.read_bytes().endswith(b"\n"):
            lines.write("\n")
        asked = {pool.submit(_ask, client, body): key for key, body in missing.items()}
        try:
            for done in tqdm(as_completed(asked), total=len(asked), desc="judge", unit="text"):
                key = asked[done]
                replies[key] = done.result()
                lines.write(json.dumps({"digest": key, "request": missing[key], "reply": replies[key]}) + "\n")
                lines.flush()
        except openai.OpenAIError as error:
            pool.shutdown(cancel_futures=True)
            raise JudgeError(
                f"{client.base_url} gave no answer for model {bodies[0]['model']!r}: {error} Check `judge` in "
                "params.yaml (url, model, key_file) and run again: the replies so far are kept."
            ) from error
    return replies


def _ask(client: openai.OpenAI, body: dict[str, Any]) -> str:
    completion = client.chat.completions.create(**body)
    return completion.choices[0].message.content or ""


def connect(settings: Judge) -> openai.OpenAI:
    """The client; its own retries wait longer and longer after lost connections, refusals for load and server errors.

    Raises:
        JudgeError: the key file cannot be read.
    """
    try:
        # A local server wants no key, the client does.
        key = Path(settings.key_file).read_text(encoding="utf-8").strip() if settings.key_file else "none"
    except OSError as error:
        raise JudgeError(f"key_file: {error}") from error
    return openai.OpenAI(base_url=settings.url, api_key=key, max_retries=settings.retries, timeout=settings.timeout)


def summary(texts: pd.DataFrame, judge: str) -> Iterator[dict[str, Any]]:
    """One row for each type, method and budget in the order of `texts`; `score` is missing where there was none."""
    for (kind, method, budget), rows in texts.groupby(["type", "method", "budget"], sort=False):
        scores = rows["score"].dropna()
        row = {
            "judge": judge,
            "type": kind,
            "method": method,
            "budget": budget,
            "n": len(scores),
            "no_score": len(rows) - len(scores),
        }
        if len(scores):
            low, high = mean_intervals(scores.to_frame())
            row |= {"score": round(scores.mean(), 4), "ci_low": round(low[0], 4), "ci_high": round(high[0], 4)}
        yield row


def write(parameters: Parameters, name: str) -> None:
    """The scores of one judge."""
    texts = pd.read_parquet(paths.needed(paths.TEXTS, "free_form"))
    settings = stage.chosen("judge", name, "judge", parameters.judge)
    bodies = [
        request(row.question, row.answer, row.prediction, settings.model) for row in texts.itertuples(index=False)
    ]
    replies = ask_all(bodies, connect(settings), settings.workers, FOLDER / f"{name}.jsonl")
    texts["score"] = pd.array([read_score(replies[digest(body)]) for body in bodies], dtype="Float64")
    write_text(FOLDER / f"{name}.csv", pd.DataFrame(summary(texts, settings.model)).to_csv(index=False))


main = stage.command(__doc__, write, argument=("judge", "a key of params.yaml's judge"), try_methods=False)

if __name__ == "__main__":
    main()
