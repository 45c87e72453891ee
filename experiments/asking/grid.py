"""Many variants on the same few questions: accuracy of each, with its interval.

What the ablations and the probes of the attention analyses have in common. All variants answer a batch before the next
batch comes, which shares the images' encoding among them. Finished batches are kept in results/parts/, under a digest
of everything they depend on, so that an interrupted run takes up where it was.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from experiments.asking import answers, benchmarks, models
from experiments.parameters.load import Parameters
from experiments.parameters.sections import Subset
from experiments.recorded import cells
from experiments.recorded.by_type import groups
from experiments.recorded.measured import measured
from pruning.choosing.base import Method

PARTS = Path("results/parts")
PART = pa.schema(
    [
        ("variant", pa.int32()),  # its number in the list of variants
        ("id", pa.string()),
        ("type", pa.string()),
        ("correct", pa.bool_()),
        ("visual_tokens_per_layer", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class Variant:
    """A method with parameters that may not fit the model.

    Attributes:
        labels: the columns that tell it from the others.
        method: the class.
        parameters: its parameters.
    """

    labels: Mapping[str, Any]
    method: type[Method]
    parameters: Mapping[str, Any]

    def fits(self, num_visual: int, num_layers: int) -> Method:
        """The method.

        Raises:
            ValueError: the parameters contradict one another, or do not fit so many visual tokens or layers.
        """
        method = self.method(**self.parameters)
        before, inside = method.parts()
        if before is not None:
            before.count(num_visual)
        if inside is not None:
            inside.stages(num_visual, num_layers)
        return method


def measure(name: str, variants: list[Variant], subset: Subset, parameters: Parameters) -> pd.DataFrame:
    """Accuracy of every variant on a balanced subset of the benchmark of the section `evaluate`.

    Args:
        name: of the folder below results/parts.
        variants: in the order of the table.
        subset: which questions; see experiments.asking.benchmarks.load.
        parameters: model, benchmark, batch size, answer length and intervals are those of the whole pipeline.

    Returns:
        One row per variant and group of questions (experiments/recorded/by_type.py), `all` first: model, benchmark,
        the variants' labels, type, feasible, reason (why a variant does not fit the model; it then holds nothing
        measured), n, mean_visual_tokens, visual_tokens_per_layer, accuracy, ci_low, ci_high.
    """
    benchmark = benchmarks.load(parameters.evaluate.benchmark, subset.questions, subset.seed)
    model, processor = models.load(parameters.model)
    batches = list(answers.make_batches(processor, model.config, benchmark, parameters.evaluate.batch_size))
    layers = model.config.get_text_config().num_hidden_layers
    methods: dict[int, dict[int, Method]] = {}
    reasons: dict[int, str] = {}
    for number, variant in enumerate(variants):
        try:
            methods[number] = {batch.visual_tokens: variant.fits(batch.visual_tokens, layers) for batch in batches}
        except ValueError as refusal:
            reasons[number] = str(refusal)
    common = {
        "variants": [[variant.method.name, dict(variant.parameters)] for variant in variants],
        "code": [cells.code_digest([method]) for method in dict.fromkeys(variant.method for variant in variants)],
        "model": cells.model_digest(model),
        "benchmark": cells.files_digest([benchmarks.path(parameters.evaluate.benchmark)]),
        "max_new_tokens": parameters.evaluate.max_new_tokens,
    }
    asked = [[question["id"] for question in batch.questions] for batch in batches]
    parts = [PARTS / name / f"{cells.digest(common | {'questions': ids})}.parquet" for ids in asked]
    missing = [(batch, part) for batch, part in zip(batches, parts, strict=True) if not part.exists()]
    with (
        tqdm(total=len(batches), initial=len(batches) - len(missing), desc=name, unit="batch") as progress,
        answers.side_by_side(model) as copies,
    ):
        todo, limit = [batch for batch, _ in missing], parameters.evaluate.max_new_tokens
        answered = answers.answer_all(copies, processor, methods, todo, limit)
        for (_, part), by_variant in zip(missing, answered, strict=True):
            cells.write_table(part, part_of(by_variant))
            progress.update()
    rows = pd.concat([pq.read_table(part).to_pandas() for part in parts], ignore_index=True)
    table = pd.DataFrame(
        [row for number, variant in enumerate(variants) for row in describe(variant, number, rows, reasons, parameters)]
    )
    table.insert(0, "model", parameters.model)
    table.insert(1, "benchmark", parameters.evaluate.benchmark)
    return table


def part_of(by_variant: Mapping[int, Mapping[int, Mapping[str, Any]]]) -> pa.Table:
    """One row per variant and question of a batch."""
    columns = ("id", "type", "correct", "visual_tokens_per_layer")
    rows = [
        {"variant": number} | {column: row[column] for column in columns}
        for number, by_row in by_variant.items()
        for row in by_row.values()
    ]
    return pa.Table.from_pylist(rows, schema=PART)


def describe(
    variant: Variant, number: int, answered: pd.DataFrame, reasons: Mapping[int, str], parameters: Parameters
) -> Iterator[dict[str, Any]]:
    """The rows of one variant, one for each group of questions."""
    own = answered[answered["variant"] == number]
    for kind, of_kind in groups(own, parameters.evaluate.benchmark, answered["type"].unique()):
        row = {**variant.labels, "type": kind, "feasible": number not in reasons, "reason": reasons.get(number, "")}
        row |= {"n": len(of_kind)}
        yield row | (measured(of_kind, parameters) if len(of_kind) else {})
