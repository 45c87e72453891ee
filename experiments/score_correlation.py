"""How much alike the methods see the same tokens: `python -m experiments.score_correlation`.

Writes results/score_correlation.csv, one row per pair: the mean and standard deviation over n questions of

- `spearman`: the rank correlation of two scores over the visual tokens, on the unpruned model. A method inside the
  language model gives its score in front of the first layer where it prunes; one that picks tokens in turn is scored by
  its order of picks. `evidence` is 1 for the tokens that the question's evidence boxes touch, else 0.
- `overlap`: how much of what two methods keep is the same, at one budget, from the predictions: each token counts by
  the share of the decoder layers it enters. Tokens made of several by merging have no place in the image and count for
  nothing, so that methods which merge overlap little with all others.

Scores are kept in results/parts/score_correlation/, under digests of all that they depend on.
"""

import functools
import itertools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from analysis.agreement import overlap, rank_correlation
from experiments import stage
from experiments.asking import answers, asked, benchmarks, models
from experiments.asking.answers import Batch
from experiments.parameters.load import Parameters
from experiments.probing.scores import BeforeScores, InsideScores
from experiments.recorded import cells, predictions
from experiments.recorded.kept import layers_per_token
from pruning.choosing.base import InsideLLM, Method
from pruning.choosing.budget import InfeasibleBudget
from pruning.registry import solve

RESULT = Path("results/score_correlation.csv")
PARTS = Path("results/parts/score_correlation")
BEFORE = "before"


def scores(parameters: Parameters) -> dict[str, np.ndarray]:
    """The scores of all questions on the unpruned model: name -> `[Q, N]`.

    Raises:
        ValueError: questions with different numbers of visual tokens, or with other than one image.
    """
    settings = parameters.score_correlation
    benchmark = benchmarks.load(parameters.evaluate.benchmark, settings.questions, settings.seed)
    model, processor = models.load(parameters.model)
    shared = asked.shared_by_methods(model, parameters.evaluate.benchmark)
    shared |= {"questions": benchmark["id"][:], "batch_size": settings.batch_size}
    before = part_path(BEFORE, shared, {"code": cells.code_digest([BeforeScores])})
    batches = functools.cache(lambda: batches_of(processor, model.config, benchmark, settings.batch_size))
    if not before.exists():
        write_scores(before, note(model, batches(), {}))
    found = read_scores(before)
    methods = scoring_methods(parameters, found["cls"].shape[1], model.config.get_text_config().num_hidden_layers)
    files = {}
    for name, method in methods.items():
        own = {"parameters": method.written(), "code": cells.code_digest([InsideScores, type(method)])}
        files[name] = part_path(name, shared, own)
    if missing := {name: method for name, method in methods.items() if not files[name].exists()}:
        noted = note(model, batches(), missing)
        for name in missing:
            write_scores(files[name], {name: noted[name]})
    return functools.reduce(operator.or_, map(read_scores, files.values()), found)


def batches_of(processor: Any, config: Any, benchmark: Any, batch_size: int) -> list[Batch]:
    """The questions in batches.

    Raises:
        ValueError: some have other numbers of visual tokens than others.
    """
    batches = list(answers.make_batches(processor, config, benchmark, batch_size))
    if len(counts := {batch.visual_tokens for batch in batches}) > 1:
        raise ValueError(f"scores can be compared over equally many visual tokens only, found {sorted(counts)}")
    return batches


def part_path(name: str, shared: dict[str, Any], own: dict[str, Any]) -> Path:
    """The file of a method's scores, or of all those before the language model."""
    return PARTS / name / f"{cells.digest(shared | own)}.parquet"


def write_scores(path: Path, scores: dict[str, np.ndarray]) -> None:
    """A column for each score."""
    cells.write_table(path, pa.table({name: list(scores_QN) for name, scores_QN in scores.items()}))


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """What `write_scores` wrote: name -> `[Q, N]`."""
    table = pq.read_table(path)
    return {name: np.stack(table[name].to_numpy()) for name in table.column_names}


def note(model: Any, batches: list[Batch], methods: dict[str, InsideLLM]) -> dict[str, np.ndarray]:
    """The scores of these methods inside the language model; none given: those before it. Name -> `[Q, N]`.

    Raises:
        ValueError: a question has other than one image.
    """
    found: dict[str, list[np.ndarray]] = {}
    for batch in tqdm(batches, "scores", unit="batch"):
        inside, before = InsideScores(methods), BeforeScores([question["boxes"] for question in batch.questions])
        observing: Method = inside if methods else before
        with torch.inference_mode(), observing(model):
            model(**{name: tensor.to(model.device) for name, tensor in batch.inputs.items()}, logits_to_keep=1)
        for name, scores_BN in (before.found | inside.found).items():
            if scores_BN.shape != (len(batch.rows), batch.visual_tokens):
                raise ValueError("scores can be compared where every question has one image only")
            found.setdefault(name, []).append(scores_BN.double().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def scoring_methods(parameters: Parameters, num_visual: int, num_layers: int) -> dict[str, InsideLLM]:
    """The methods of params.yaml that prune inside the language model by a score and reach the budget."""
    settings, methods = parameters.score_correlation, {}
    for name, fixed in parameters.evaluate.methods.items():
        try:
            method: Any = solve(
                name, settings.budget * num_visual, num_visual=num_visual, num_layers=num_layers, **fixed
            )
        except InfeasibleBudget:
            continue
        if isinstance(method, InsideLLM) and type(method).score is not InsideLLM.score:
            methods[name] = method
    return methods


def kept_shares(parameters: Parameters) -> dict[str, np.ndarray]:
    """What the methods that reach the budget keep: name -> share of the decoder layers that each token enters `[Q, N]`.

    Raises:
        ValueError: fewer than two methods were evaluated at the budget.
    """
    budget, shares = parameters.score_correlation.budget, {}
    for cell in predictions.read(parameters.evaluate, ["id", "visual_tokens", "visual_tokens_per_layer", "kept"]):
        if cell.feasible and cell.budget == budget != 1.0:
            rows = cell.answers.sort_values("id").to_dict("records")
            layers = len(rows[0]["visual_tokens_per_layer"])
            entered = [layers_per_token(row["kept"], row["visual_tokens"], layers) for row in rows]
            shares[cell.method] = np.stack(entered) / layers
    if len(shares) < 2:
        raise ValueError(f"score_correlation.budget: no two methods were evaluated at {budget}; take one of evaluate's")
    return shares


def pairs(measure: str, matrices_QMM: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each pair of names: mean and standard deviation over the n questions where the measure is defined."""
    rows = []
    for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
        values = matrices_QMM[:, i, j]
        values = values[np.isfinite(values)]
        if len(values):
            row = {"measure": measure, "first": first, "second": second, "n": len(values)}
            rows.append(row | {"mean": values.mean(), "standard_deviation": values.std()})
    return rows


def table(parameters: Parameters) -> pd.DataFrame:
    """score_correlation.csv; see the module's text."""
    settings = parameters.score_correlation
    kept, scored = kept_shares(parameters), scores(parameters)
    rows = pairs("spearman", rank_correlation(np.stack([*scored.values()], axis=1)), [*scored])
    rows += pairs("overlap", overlap(np.stack([*kept.values()], axis=1)), [*kept])
    result = pd.DataFrame(rows)
    result.insert(1, "budget", result["measure"].map({"overlap": settings.budget}))
    return result


def write(parameters: Parameters) -> None:
    """The table."""
    cells.write_text(RESULT, table(parameters).to_csv(index=False, float_format="%.5g"))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
