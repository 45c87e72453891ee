"""Answer a benchmark's questions with one method at every budget: `python -m experiments.evaluate vispruner`.

Reads the sections `model` and `evaluate` of params.yaml. Writes, per method:

- results/predictions/METHOD.parquet: one row per budget and question (`SCHEMA`);
- results/predictions/METHOD.json: one entry per budget: what was asked, and the floor where the method cannot reach it.

Finished budgets are kept in results/parts/, some batches a file, each under a digest of the model, the code, the
parameters and the questions it depends on: an interrupted run takes up where it was, and a changed parameter starts its
budgets anew. The budgets of a run share the preprocessed images and prompts and, batch by batch, what the vision tower
and the projector make of them, unless the method changes the tower.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from experiments import stage
from experiments.asking import answers, benchmarks, clip, models
from experiments.asking.answers import Batch, Plan
from experiments.parameters.load import Parameters
from experiments.parameters.sections import Evaluate
from experiments.recorded import cells
from experiments.recorded.predictions import PREDICTIONS, budgets_of
from pruning import registry

PARTS = Path("results/parts")
BATCHES_A_PART = 10
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("method", pa.string()),
        ("parameters", pa.string()),  # JSON
        ("budget", pa.float64()),  # as asked for, a fraction of the visual tokens
        ("prediction", pa.string()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("text_tokens", pa.int32()),  # tokens of the prompt that are not visual
        ("images", pa.string()),  # JSON; see pruning.models.flops.count
        ("visual_tokens", pa.int32()),  # before pruning
        ("visual_tokens_per_layer", pa.list_(pa.int32())),
        # Visual tokens entering a layer, in their original numbering, for each layer where they are not those of the
        # layer before (before layer 0: all of them).
        ("kept", pa.list_(pa.struct([("layer", pa.int32()), ("indices", pa.list_(pa.int32()))]))),
        # What each token is made of that the method made by merging, in the same numbering, going on behind it.
        ("merged", pa.list_(pa.struct([("token", pa.int32()), ("of", pa.list_(pa.int32()))]))),
    ]
)
ROW = pa.field("row", pa.int32())


def evaluate(name: str, model_name: str, settings: Evaluate) -> None:
    """Run one method at all budgets and write its two files; see the module's text.

    Raises:
        ValueError: the method is not among the parameters', or a parameter, the model or the benchmark is wrong.
    """
    fixed = dict(stage.chosen("method", name, "evaluate.methods", settings.methods))
    benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    model, processor = models.load(model_name)
    parameters, method = clip.loaded(fixed, model.device), registry.make(name, **fixed)
    common = {
        "method": name,
        "fixed": fixed,
        "model": cells.model_digest(model),
        "code": cells.code_digest([type(one) for one in (method, *method.made_of)], Path(__file__)),
        "benchmark": cells.files_digest([benchmarks.path(settings.benchmark)]),
        "questions": benchmark["id"][:],
        "batch_size": settings.batch_size,
        "max_new_tokens": settings.max_new_tokens,
    }
    if "clip" in fixed:
        common["clip"] = cells.model_digest(parameters["clip"])
    layout = answers.rows_of_batches(benchmark, settings.batch_size)
    groups = [layout[start : start + BATCHES_A_PART] for start in range(0, len(layout), BATCHES_A_PART)]
    budgets = budgets_of(name, settings.budgets)
    parts = {
        (budget, part): PARTS / name / f"{cells.digest(common | {'budget': budget, 'part': part})}.parquet"
        for budget in budgets
        for part in range(len(groups))
    }
    missing = [key for key, path in parts.items() if not path.exists()]
    finished = sum(len(rows) for _, part in parts.keys() - missing for rows in groups[part])
    with (
        tqdm(total=len(budgets) * len(benchmark), initial=finished, desc=name, unit="question") as progress,
        answers.side_by_side(model) as copies,
    ):
        make = answers.make_batches(processor, model.config, benchmark, settings.batch_size)
        batches = list(make) if missing else []
        unfinished = {budget for budget, _ in missing}
        planned = {budget: answers.plan(name, budget, parameters, model.config, batches) for budget in unfinished}
        for part in sorted({part for _, part in missing}):
            cut = batches[part * BATCHES_A_PART : (part + 1) * BATCHES_A_PART]
            asked = {budget: planned[budget] for budget in budgets if (budget, part) in missing}
            for budget, table in run_part(asked, copies, processor, cut, settings.max_new_tokens, progress).items():
                cells.write_table(parts[budget, part], table)
    tables = [joined([pq.read_table(parts[budget, part]) for part in range(len(groups))]) for budget in budgets]
    described = [json.loads(table.schema.metadata[b"cell"]) for table in tables]
    predictions = pa.concat_tables([SCHEMA.empty_table(), *(table.replace_schema_metadata(None) for table in tables)])
    cells.write_table(PREDICTIONS / f"{name}.parquet", predictions)
    cells.write_text(PREDICTIONS / f"{name}.json", json.dumps(described, indent=1) + "\n")


def run_part(
    planned: dict[float, Plan],
    copies: list[PreTrainedModel],
    processor: ProcessorMixin,
    batches: list[Batch],
    max_new_tokens: int,
    progress: tqdm,
) -> dict[float, pa.Table]:
    """Some batches at several budgets: for each a table, empty where the method cannot reach the budget.

    Besides `SCHEMA` it has the `row` in the benchmark; its metadata `cell` holds that of the plan as JSON.
    """
    rows: dict[float, dict[int, dict[str, Any]]] = {budget: {} for budget in planned}
    methods = {budget: one.methods for budget, one in planned.items() if one.methods is not None}
    questions = sum(len(batch.rows) for batch in batches)
    progress.update(questions * (len(planned) - len(methods)))
    if methods:
        for answered in answers.answer_all(copies, processor, methods, batches, max_new_tokens):
            for budget, found in answered.items():
                rows[budget] |= found
                progress.update(len(found))
    schema = SCHEMA.append(ROW)
    return {
        budget: pa.Table.from_pylist(
            [{**found, "budget": budget, "row": row} for row, found in rows[budget].items()], schema=schema
        ).replace_schema_metadata({"cell": json.dumps(one.cell)})
        for budget, one in planned.items()
    }


def joined(parts: list[pa.Table]) -> pa.Table:
    """The parts of one budget in the benchmark's order."""
    return pa.concat_tables(parts).sort_by("row").drop_columns("row")


def write(parameters: Parameters, name: str) -> None:
    """The two files of one method."""
    evaluate(name, parameters.model, parameters.evaluate)


main = stage.command(__doc__, write, argument=("method", "a key of params.yaml's evaluate.methods"))

if __name__ == "__main__":
    main()
