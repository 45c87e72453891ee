"""What one asks of a recipe: count, answer, score, table. See docs/benchmarks.md.

    python -m experiments.lmms run recipes/vispruner.yaml --data DATA --out OUT

`dry` prints what a recipe would take, `answer` asks the model (`--shard 0/4` a quarter of the parts), `score` scores
the stored answers, `table` writes OUT/tables/RECIPE, and `run` does the last three. What is there already is used.
`python -m experiments.benchmarking` does the same without lmms-eval, for recipes that need none.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from experiments.asking import models
from experiments.benchmarking import dry, judged, scored, stored, table, viscot
from experiments.benchmarking.answer import answer, runs_of
from experiments.benchmarking.named import BENCHMARKS, VISUAL_COT
from experiments.benchmarking.questions import Questions, QuestionsError
from experiments.benchmarking.recipe import Recipe, load
from experiments.benchmarking.stored import Run
from experiments.named.presets import ModelError
from experiments.recorded import cells

OUT = Path("results/benchmarks")
Scorer = Callable[[Run, Any, Path], None]


@dataclass(frozen=True)
class Source:
    """Where a benchmark's questions come from, and who scores their answers.

    Attributes:
        questions: by name of the benchmark, folder of local data or None, and a limit on their number (0: none).
        score: a run's answers, of benchmarks without a judge.
        protocol: by which a language model judges those of the others.
    """

    questions: Callable[[str, Path | None, int], Questions]
    score: Scorer | None
    protocol: judged.Protocol | None


SOURCES = {VISUAL_COT: Source(viscot.VisualCoT, None, judged.GLIMPSEPRUNE)}


def main(sources: dict[str, Source] = SOURCES) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("dry", "answer", "score", "table", "run"))
    parser.add_argument("recipe", type=Path, help="a file of recipes/")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of all results; default: %(default)s")
    parser.add_argument("--data", type=Path, help="folder of local data; default: the Hugging Face hub")
    parser.add_argument("--weights", help="folder of the model and its processor; default: the preset's")
    parser.add_argument("--shard", default="0/1", help="i/n: only every n-th part of the answers, from the i-th on")
    parser.add_argument("--limit", type=int, default=0, help="only the first questions of each benchmark, for a trial")
    parser.add_argument("--benchmark", action="append", help="only this one of the recipe's; may be given again")
    parser.add_argument("--modules", type=Path, help="folder of GlimpsePrune's modules; default: the recipe's `path`")
    parser.add_argument("--judge-url", help="of the endpoint of the recipe's judge")
    parser.add_argument("--rate", type=float, help="dry: answers a second; default: what was measured in --out")
    parser.add_argument("--dry", action="store_true", help="the same as dry")
    given = parser.parse_args()
    try:
        recipe = narrowed(load(given.recipe), given.benchmark, given.judge_url, given.modules)
        if given.dry or given.what == "dry":
            print(dry.text(recipe, given.out, given.limit, given.rate))
            return
        if given.what in ("answer", "run"):
            ask(recipe, sources, given.out, given.data, given.weights, shard_of(given.shard), given.limit)
        if given.what in ("score", "run"):
            score(recipe, sources, given.out, given.data, given.limit)
        if given.what in ("table", "run"):
            for note in table.write(recipe, given.recipe.stem, given.out):
                print(f"note: {note}", file=sys.stderr)
            print(given.out / "tables" / given.recipe.stem / "table.md")
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")


def narrowed(
    recipe: Recipe, benchmarks: list[str] | None, judge_url: str | None, modules: Path | None = None
) -> Recipe:
    """The recipe with some of its benchmarks only, another endpoint of its judge and other modules of GlimpsePrune's.

    Raises:
        ValueError: a benchmark that the recipe does not have.
    """
    changes: dict[str, Any] = {}
    for name in benchmarks or ():
        if name not in recipe.benchmarks:
            raise ValueError(f"the recipe has no benchmark {name!r}, but {', '.join(recipe.benchmarks)}")
        changes.setdefault("benchmarks", {})[name] = recipe.benchmarks[name]
    if judge_url is not None and recipe.judge is not None:
        changes["judge"] = recipe.judge.model_copy(update={"url": judge_url})
    if modules is not None and (glimpse := recipe.methods.get("glimpse")) is not None:
        named = glimpse.model_copy(update={"parameters": glimpse.parameters | {"path": str(modules)}})
        changes["methods"] = recipe.methods | {"glimpse": named}
    return Recipe.model_validate({key: getattr(recipe, key) for key in Recipe.model_fields} | changes)


def shard_of(text: str) -> tuple[int, int]:
    """The numbers of "i/n". Raises ValueError for anything else."""
    first, slash, count = text.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ValueError(f"--shard {text!r} is not like 0/4: which part, from 0 on, and how many there are")
    return int(first), int(count)


def source_of(name: str, sources: dict[str, Source]) -> Source:
    """Who asks a benchmark.

    Raises:
        QuestionsError: that needs the other environment.
    """
    source = BENCHMARKS[name].source
    if source not in sources:
        raise QuestionsError(
            f"{name} needs {source}: `make setup-benchmarks`, then build/benchmarks-env/bin/python -m experiments.lmms"
        )
    return sources[source]


def ask(
    recipe: Recipe,
    sources: dict[str, Source],
    out: Path,
    data: Path | None,
    weights: str | None,
    shard: tuple[int, int],
    limit: int,
) -> None:
    """Answer what is missing; one loading of the model serves all benchmarks and settings."""
    asked = recipe.asked()
    by_name = {name: source_of(name, sources) for name in recipe.benchmarks}
    model, processor = models.load(recipe.model, weights=weights)
    if recipe.max_pixels is not None:
        limit_pixels(processor, recipe.max_pixels)
    model.config.save_pretrained(out / "models" / asked.model_name)
    digest = cells.model_digest(model)
    for name, source in by_name.items():
        questions = source.questions(name, data, limit)
        runs = runs_of(recipe.settings, questions, model, digest, asked, out)
        answer(runs, questions, model, processor, asked, shard)


def limit_pixels(processor: ProcessorMixin, pixels: int) -> None:
    """Images of at most so many pixels.

    Raises:
        ModelError: the model scales every image to the same size.
    """
    image_processor = processor.image_processor
    if not hasattr(image_processor, "merge_size"):
        raise ModelError("max_pixels: this model scales every image to the same size; leave it out")
    smallest = image_processor.size["shortest_edge"]
    image_processor.size = {"shortest_edge": min(smallest, pixels), "longest_edge": pixels}


def score(recipe: Recipe, sources: dict[str, Source], out: Path, data: Path | None, limit: int) -> None:
    """Score every complete run of the recipe that has no scores yet."""
    chosen, _ = stored.newest(out)
    wanted = {(setting.method, setting.label) for setting in recipe.settings}
    for name in recipe.benchmarks:
        todo = [
            run
            for run in chosen
            if run.description["benchmark"] == name
            and run.description["model"] == recipe.asked().model_name
            and (run.description["method"], run.description["setting"]) in wanted
            and not scored.path(out, run).exists()
        ]
        if not todo:
            continue
        source = source_of(name, sources)
        questions = source.questions(name, data, limit)
        for run in todo:
            if run.description["depends_on"]["questions"] != questions.identity:
                raise QuestionsError(f"{run.folder}: other questions than now were answered; --limit or --data differ")
        if BENCHMARKS[name].judge:
            judged.score(todo, questions, recipe.judge, source.protocol, out)
        elif source.score is not None:
            for run in todo:
                source.score(run, questions, out)
