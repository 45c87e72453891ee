"""Answer a benchmark's questions with every method at every budget: `python -m experiments.evaluate`, or only some
methods: `python -m experiments.evaluate vispruner fastv`.

Reads the sections `model` and `evaluate` of params.yaml. Writes, per method:

- results/predictions/METHOD.parquet: one row per budget and question (`SCHEMA`);
- results/predictions/METHOD.json: one entry per budget: what was asked, facts of the method, and the floor where
  it cannot reach the budget.

All methods and budgets share the preprocessed images and prompts and, batch by batch, what the vision tower and the
projector make of them, unless a method changes the tower. Finished answers are kept in results/parts/, some batches of
one method at one budget a file, each under a digest of the model, the code, the parameters and the questions it depends
on: an interrupted run takes up where it was, and a changed parameter or method starts its own budgets anew.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from experiments import stage
from experiments.asking import answers, asked, benchmarks, models
from experiments.asking.answers import Batch, Plan
from experiments.asking.asked import Asked
from experiments.parameters.load import Parameters
from experiments.parameters.sections import Evaluate
from experiments.recorded import cells
from experiments.recorded.predictions import PREDICTIONS, TERMS, budgets_of
from pruning import registry

Key = tuple[str, float]  # method and budget

PARTS = Path("results/parts")
BATCHES_A_PART = 4
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
        # Of this question (TERMS), and of the whole prefill unpruned (`full`).
        ("flops", pa.struct([(term, pa.float64()) for term in (*TERMS, "full")])),
        # Visual tokens under the evidence boxes; null where they form no square raster.
        ("evidence", pa.list_(pa.int32())),
        # Visual tokens entering a layer, in their original numbering, for each layer where they are not those of the
        # layer before (before layer 0: all of them).
        ("kept", pa.list_(pa.struct([("layer", pa.int32()), ("indices", pa.list_(pa.int32()))]))),
        # What each token is made of that the method made by merging, in the same numbering, going on behind it.
        ("merged", pa.list_(pa.struct([("token", pa.int32()), ("of", pa.list_(pa.int32()))]))),
    ]
)
ROW = pa.field("row", pa.int32())


def evaluate(names: Sequence[str], model_name: str, settings: Evaluate) -> None:
    """Run methods at all budgets and write the two files of each; see the module's text.

    Raises:
        ValueError: a method is not among the parameters', or a parameter, the model or the benchmark is wrong.
    """
    benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    model, processor = models.load(model_name)
    shared = {
        "questions": benchmark["id"][:],
        "batch_size": settings.batch_size,
        "max_new_tokens": settings.max_new_tokens,
        **asked.shared_by_methods(model, settings.benchmark),
    }
    given = {name: stage.chosen("method", name, "evaluate.methods", settings.methods) for name in names}
    methods = {name: asked.ask(name, fixed, model, shared, Path(__file__)) for name, fixed in given.items()}
    layout = answers.rows_of_batches(benchmark, settings.batch_size)
    groups = [layout[start : start + BATCHES_A_PART] for start in range(0, len(layout), BATCHES_A_PART)]
    wanted = [(name, budget) for name in names for budget in budgets_of(name, settings.budgets)]
    parts = {
        (name, budget, part): part_path(methods[name], name, budget, part)
        for name, budget in wanted
        for part in range(len(groups))
    }
    missing = [key for key, path in parts.items() if not path.exists()]
    finished = sum(len(rows) for *_, part in parts.keys() - missing for rows in groups[part])
    with (
        tqdm(total=len(wanted) * len(benchmark), initial=finished, desc="evaluate", unit="question") as progress,
        answers.side_by_side(model) as copies,
    ):
        make = answers.make_batches(processor, model.config, benchmark, settings.batch_size)
        batches = list(make) if missing else []
        planned = {
            (name, budget): answers.plan(name, budget, methods[name].parameters, model.config, batches)
            for name, budget in dict.fromkeys((name, budget) for name, budget, _ in missing)
        }
        for part in sorted({part for *_, part in missing}):
            cut = batches[part * BATCHES_A_PART : (part + 1) * BATCHES_A_PART]
            todo = {key: plan for key, plan in planned.items() if (*key, part) in missing}
            for key, table in run_part(todo, copies, processor, cut, settings.max_new_tokens, progress).items():
                cells.write_table(parts[*key, part], table)
    for name in names:
        budgets = budgets_of(name, settings.budgets)
        write_method(name, [[parts[name, budget, part] for part in range(len(groups))] for budget in budgets])


def part_path(method: Asked, name: str, budget: float, part: int) -> Path:
    """The file of some batches' answers of a method at a budget."""
    return PARTS / name / f"{cells.digest(method.depends_on | {'budget': budget, 'part': part})}.parquet"


def run_part(
    planned: Mapping[Key, Plan],
    copies: list[PreTrainedModel],
    processor: ProcessorMixin,
    batches: list[Batch],
    max_new_tokens: int,
    progress: tqdm,
) -> dict[Key, pa.Table]:
    """Some batches with several methods at several budgets: for each a table, empty where the budget is out of reach.

    Besides `SCHEMA` it has the `row` in the benchmark; its metadata `cell` holds that of the plan as JSON.
    """
    rows: dict[Key, dict[int, dict[str, Any]]] = {key: {} for key in planned}
    methods = {key: one.methods for key, one in planned.items() if one.methods is not None}
    questions = sum(len(batch.rows) for batch in batches)
    progress.update(questions * (len(planned) - len(methods)))
    if methods:
        for answered in answers.answer_all(copies, processor, methods, batches, max_new_tokens):
            for key, found in answered.items():
                rows[key] |= found
                progress.update(len(found))
    schema = SCHEMA.append(ROW)
    return {
        (name, budget): pa.Table.from_pylist(
            [{**found, "budget": budget, "row": row} for row, found in rows[name, budget].items()], schema=schema
        ).replace_schema_metadata({"cell": json.dumps(one.cell)})
        for (name, budget), one in planned.items()
    }


def write_method(name: str, parts: list[list[Path]]) -> None:
    """The two files of a method, from the parts of each of its budgets."""
    tables = [joined([pq.read_table(path) for path in of_budget]) for of_budget in parts]
    method = registry.get(name)
    facts = {"role": method.role, "budget_parameter": method.budget_parameter}
    described = [json.loads(table.schema.metadata[b"cell"]) | facts for table in tables]
    predictions = pa.concat_tables([SCHEMA.empty_table(), *(table.replace_schema_metadata(None) for table in tables)])
    cells.write_table(PREDICTIONS / f"{name}.parquet", predictions)
    cells.write_text(PREDICTIONS / f"{name}.json", json.dumps(described, indent=1) + "\n")


def joined(parts: list[pa.Table]) -> pa.Table:
    """The parts of one budget in the benchmark's order."""
    return pa.concat_tables(parts).sort_by("row").drop_columns("row")


def write(parameters: Parameters, names: list[str]) -> None:
    """The two files of each of these methods; none named: of all of params.yaml's."""
    evaluate(names or list(parameters.evaluate.methods), parameters.model, parameters.evaluate)


main = stage.command(
    __doc__, write, argument=("method", "keys of params.yaml's evaluate.methods; none: all"), any_number=True
)

if __name__ == "__main__":
    main()
