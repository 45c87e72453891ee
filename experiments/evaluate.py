"""Answer a benchmark's questions with one method at every budget: `python -m experiments.evaluate vispruner`.

Reads the sections `model` and `evaluate` of params.yaml. Writes, per method:

- results/predictions/METHOD.parquet: one row per budget and question (`SCHEMA`);
- results/predictions/METHOD.json: one entry per budget: what was asked, and the floor where the method cannot reach it.

Finished budgets are kept in results/parts/, each under a digest of the model, the code, the parameters and the
questions it depends on: an interrupted run takes up where it was, and a changed parameter starts its budgets anew.
Preprocessed images and prompts are shared by the budgets of a run; the vision tower runs again in every one.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from analysis import flops
from experiments import answers, benchmarks, boxes, cells, clip, images, inputs, models, processors
from experiments.answers import Batch
from experiments.parameters import Evaluate, load_parameters
from experiments.predictions import PREDICTIONS, budgets_of
from pruning import registry
from pruning.budget import InfeasibleBudget, solve

PARTS = Path("results/parts")
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
        ("images", pa.string()),  # JSON; see analysis.flops.count
        ("visual_tokens", pa.int32()),  # before pruning
        ("visual_tokens_per_layer", pa.list_(pa.int32())),
        # Visual tokens entering a layer, in their original numbering, for each layer where they are not those of the
        # layer before (before layer 0: all of them).
        ("kept", pa.list_(pa.struct([("layer", pa.int32()), ("indices", pa.list_(pa.int32()))]))),
    ]
)
# What a cell's outcome depends on besides the method and pruning/.
CODE = (answers, benchmarks, boxes, clip, flops, images, inputs, processors, sys.modules[__name__])


def evaluate(name: str, model_name: str, settings: Evaluate) -> None:
    """Run one method at all budgets and write its two files; see the module's text.

    Raises:
        ValueError: the method is not among the parameters', or a parameter, the model or the benchmark is wrong.
    """
    if name not in settings.methods:
        raise ValueError(f"method {name!r} is not in params.yaml's evaluate.methods: {', '.join(settings.methods)}")
    fixed = dict(settings.methods[name])
    benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    model, processor = models.load(model_name)
    parameters = clip.loaded(fixed, model.device)
    common = {
        "method": name,
        "fixed": fixed,
        "model": cells.model_digest(model),
        "code": cells.code_digest(registry.make(name, **fixed), *CODE),
        "benchmark": cells.files_digest([benchmarks.path(settings.benchmark)]),
        "questions": benchmark["id"][:],
        "batch_size": settings.batch_size,
        "max_new_tokens": settings.max_new_tokens,
    }
    if "clip" in fixed:
        common["clip"] = cells.model_digest(parameters["clip"])
    budgets = budgets_of(name, settings.budgets)
    parts = {budget: PARTS / name / f"{cells.digest(common | {'budget': budget})}.parquet" for budget in budgets}
    missing = [budget for budget in budgets if not parts[budget].exists()]
    total, finished = len(budgets) * len(benchmark), (len(budgets) - len(missing)) * len(benchmark)
    with (
        tqdm(total=total, initial=finished, desc=name, unit="question") as progress,
        answers.side_by_side(model) as copies,
    ):
        make = answers.make_batches(processor, model.config, benchmark, settings.batch_size)
        batches = list(make) if missing else []
        for budget in missing:
            table = run_cell(name, budget, parameters, copies, processor, batches, settings.max_new_tokens, progress)
            cells.write_table(parts[budget], table)
    tables = [pq.read_table(parts[budget]) for budget in budgets]
    described = [json.loads(table.schema.metadata[b"cell"]) for table in tables]
    predictions = pa.concat_tables([SCHEMA.empty_table(), *(table.replace_schema_metadata(None) for table in tables)])
    cells.write_table(PREDICTIONS / f"{name}.parquet", predictions)
    cells.write_text(PREDICTIONS / f"{name}.json", json.dumps(described, indent=1) + "\n")


def run_cell(
    name: str,
    budget: float,
    fixed: dict[str, Any],
    copies: list[PreTrainedModel],
    processor: ProcessorMixin,
    batches: list[Batch],
    max_new_tokens: int,
    progress: tqdm,
) -> pa.Table:
    """One method at one budget: a table in the benchmark's order, empty where the method cannot reach the budget.

    The table's metadata `cell` holds (as JSON) method, budget, feasible and, where not feasible, the floor: the least
    mean visual tokens the method can reach.
    """
    cell = {"method": name, "budget": budget, "feasible": True, "floor": None}
    layers = copies[0].config.get_text_config().num_hidden_layers
    rows: dict[int, dict[str, Any]] = {}
    try:
        methods = {
            count: solve(name, budget * count, num_visual=count, num_layers=layers, **fixed)
            for count in sorted({batch.visual_tokens for batch in batches})
        }
    except InfeasibleBudget as error:
        cell |= {"feasible": False, "floor": error.floor}
        progress.update(sum(len(batch.rows) for batch in batches))
    else:
        for answered in answers.answer_all(copies, processor, methods, batches, max_new_tokens):
            rows |= answered
            progress.update(len(answered))
    table = pa.Table.from_pylist([{**rows[row], "budget": budget} for row in sorted(rows)], schema=SCHEMA)
    return table.replace_schema_metadata({"cell": json.dumps(cell)})


def main() -> None:
    """Command line: the method to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="a key of params.yaml's evaluate.methods")
    name = parser.parse_args().method
    try:
        parameters = load_parameters()
        evaluate(name, parameters.model, parameters.evaluate)
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
