"""What a recipe would take, before anything runs: cells, questions, GPU hours, disk."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from experiments.benchmarking import stored
from experiments.benchmarking.named import BENCHMARKS
from experiments.benchmarking.recipe import Recipe

# Of a stored answer without kept tokens, where none was measured; measured ones take its place.
BYTES_AN_ANSWER = 200
# In a part of fewer answers the file's own header is most of its bytes.
ANSWERS_OF_A_MEASURE = 100


def text(recipe: Recipe, out: Path, limit: int = 0, rate: float | None = None) -> str:
    """A few lines for the reader.

    Args:
        recipe: to count.
        out: folder of results; what this model answered there gives the rate and the size of answers.
        limit: as the command's.
        rate: answers a second; None: as measured.
    """
    asked, lines = recipe.asked(), [recipe.title, *(f"  not as in the paper: {text}" for text in recipe.departures)]
    counts = {name: BENCHMARKS[name].questions for name in recipe.benchmarks}
    if limit:
        counts = {name: min(limit, count) for name, count in counts.items()}
    settings, questions = len(recipe.settings), sum(counts.values())
    lines.append(f"model {recipe.model}: image {asked.image}, system {asked.system}, batches of {recipe.batch_size}")
    lines += [f"  {name}: about {count} questions" for name, count in counts.items()]
    lines += [f"  {setting.method}, {setting.label}" for setting in recipe.settings]
    answers = questions * settings
    lines.append(f"cells: {len(counts)} benchmarks x {settings} settings = {len(counts) * settings}")
    lines.append(f"answers: about {questions} questions x {settings} settings = {answers}")
    measured = list(_measured(out, asked.model_name))
    if rate is None and (total := sum(count for _, count, _ in measured)):
        rate = total / sum(seconds for seconds, _, _ in measured)
        lines.append(f"rate: {rate:.2f} answers a second, of {total} answers in {out}")
    if rate is None:
        lines.append("GPU hours: unknown; measure with `answer ... --limit 64` on the machine, or give --rate")
    else:
        lines.append(f"GPU hours: about {answers / rate / 3600:.1f} on one, without loading, scoring and a judge")
    whole = [(count, written) for _, count, written in measured if count >= ANSWERS_OF_A_MEASURE]
    size = sum(written for _, written in whole) / sum(count for count, _ in whole) if whole else BYTES_AN_ANSWER
    lines.append(f"disk: about {answers * size / 1e6:.0f} MB for answers, beside the weights and the data sets")
    return "\n".join(lines)


def _measured(out: Path, model: str) -> Iterator[tuple[float, int, int]]:
    """Seconds, answers and bytes of every stored part of a model."""
    for run in stored.runs(out):
        if run.description["model"] == model:
            for path in run.folder.glob("part-*.parquet"):
                seconds: pd.Series = pq.ParquetFile(path).read(columns=["seconds"]).to_pandas()["seconds"].dropna()
                yield float(seconds.sum()), len(seconds), path.stat().st_size
