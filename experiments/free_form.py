"""Captions under pruning, scored by the facts they state: `python -m experiments.free_form`.

Reads the sections `model`, `evaluate` (the methods' own parameters) and `free_form` of params.yaml. Writes

- results/free_form.parquet: one row per method, budget and question, with the text, its `precision`, `recall` and `f1`,
  how many objects it names (`named`) and how many of them are not in the picture (`invented`);
- results/free_form.csv: their means, F1 with a bootstrap interval, and floors where
  infeasible; and hallucination as CHAIR counts it (Rohrbach et al., arXiv 1809.02156): `chair_i`, the share of the
  named objects that are not in the picture, and `chair_s`, the share of the texts that name one, with its interval.

`experiments.judge` has a language model score the same texts.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from datasets import Dataset
from tqdm import tqdm

from analysis.significance import accuracy_interval, mean_intervals
from experiments import stage
from experiments.asking import answers, benchmarks, models
from experiments.named.benchmarks import FREE_FORM
from experiments.parameters.load import Parameters
from experiments.recorded import cells, paths
from experiments.recorded.predictions import budgets_of
from experiments.testbed.facts import objects_named, score_facts

RESULT = Path("results/free_form.csv")


def run(parameters: Parameters, questions: Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All cells: a table of texts and a table of cells (`method`, `budget`, `feasible`, `floor`).

    Raises ValueError for a method that the grid does not have.
    """
    settings = parameters.free_form
    if unknown := sorted(set(settings.methods) - parameters.evaluate.methods.keys()):
        raise ValueError(f"free_form.methods has {', '.join(unknown)}, which evaluate.methods in params.yaml has not")
    model, processor = models.load(parameters.model)
    batches = list(answers.make_batches(processor, model.config, questions, settings.batch_size))
    planned = {
        (name, budget): answers.plan(name, budget, parameters.evaluate.methods[name], model.config, batches)
        for name in settings.methods
        for budget in budgets_of(name, settings.budgets)
    }
    methods = {cell: one.methods for cell, one in planned.items() if one.methods is not None}
    texts: list[dict[str, Any]] = []
    with answers.side_by_side(model) as copies, tqdm(total=len(methods) * len(questions), unit="text") as progress:
        for answered in answers.answer_all(copies, processor, methods, batches, settings.max_new_tokens):
            for (name, budget), rows in answered.items():
                texts += [{"row": row, "method": name, "budget": budget, **answer} for row, answer in rows.items()]
                progress.update(len(rows))
    return pd.DataFrame(texts), pd.DataFrame([one.cell for one in planned.values()])


def objects_of_scenes(captions: Dataset) -> dict[str, frozenset[tuple[str, str]]]:
    """The objects of every scene by its id, which its rows' ids begin with: those that its caption names."""
    ids, answers_of = captions["id"], captions["answer"]
    return {scene_of(name): objects_named(text) for name, text in zip(ids, answers_of, strict=True)}


def scene_of(question: str) -> str:
    """The part of a question's id that names the scene: evaluation-0007-caption is about evaluation-0007."""
    return question.rsplit("-", 1)[0]


def scored(texts: pd.DataFrame, questions: Dataset, present: Mapping[str, frozenset[tuple[str, str]]]) -> pd.DataFrame:
    """The texts with their questions and scores, in the benchmark's order within each cell.

    Args:
        texts: of `run`.
        questions: what was asked.
        present: the objects of every scene, see `objects_of_scenes`.
    """
    asked, types = questions["question"], questions["type"]
    scores = [score_facts(text, right) for text, right in zip(texts["prediction"], texts["answer"], strict=True)]
    rows = texts["row"]
    table = texts.assign(question=[asked[row] for row in rows], type=[types[row] for row in rows])
    table = pd.concat([table, pd.DataFrame(scores, index=table.index)], axis=1)
    named = table["prediction"].map(objects_named)
    invented = [len(found - present[scene_of(name)]) for found, name in zip(named, table["id"], strict=True)]
    table = table.assign(named=named.map(len), invented=invented)
    columns = ["id", "type", "method", "budget", "question", "answer", "prediction", "precision", "recall", "f1"]
    columns += ["named", "invented"]
    cell_order = table.groupby(["method", "budget"], sort=False).ngroup()
    return table.assign(cell=cell_order).sort_values(["cell", "row"])[columns].reset_index(drop=True)


def summary(table: pd.DataFrame, described: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One row for each cell and type of text: means in 0..1, the interval of the mean F1 and of `chair_s`."""
    return pd.DataFrame(_summarised(table, described, seed))


def _summarised(table: pd.DataFrame, described: pd.DataFrame, seed: int) -> Iterator[dict[str, Any]]:
    types = sorted(table["type"].unique())
    for cell, kind in product(described.to_dict("records"), types):
        matches = (table["method"] == cell["method"]) & (table["budget"] == cell["budget"]) & (table["type"] == kind)
        rows = table[matches]
        entry = {"type": kind, **cell, "n": len(rows)}
        if cell["feasible"]:
            low, high = mean_intervals(rows[["f1"]], seed=seed)
            means = rows[["precision", "recall", "f1"]].mean().to_dict()
            ends = {"ci_low": float(low[0]), "ci_high": float(high[0])}
            invents = rows["invented"] > 0
            below, above = accuracy_interval(invents.astype(float), seed=seed)
            chair = {"chair_i": rows["invented"].sum() / max(1, rows["named"].sum()), "chair_s": invents.mean()}
            chair |= {"chair_s_low": below, "chair_s_high": above}
            entry |= {name: round(float(value), 4) for name, value in (means | ends | chair).items()}
        yield entry


def write(parameters: Parameters) -> None:
    """The texts and their scores."""
    settings = parameters.free_form
    questions = benchmarks.load(parameters.evaluate.benchmark, settings.questions, settings.seed, types=FREE_FORM)
    texts, described = run(parameters, questions)
    captions = benchmarks.load(parameters.evaluate.benchmark, types=("caption",))
    table = scored(texts, questions, objects_of_scenes(captions.remove_columns("image")))
    result = summary(table, described, settings.seed)
    result.insert(0, "model", parameters.model)
    cells.write_table(paths.TEXTS, pa.Table.from_pandas(table, preserve_index=False))
    cells.write_text(RESULT, result.to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
