"""What GlimpsePrune keeps and whether it is the evidence: `python -m experiments.glimpse_masks`.

Reads the sections `evaluate` (benchmark, batch size) and `glimpse_masks` (models' modules, caps) of params.yaml. The
kept share is that after layer K, as in the paper; the tokens of the evidence boxes are those of
experiments/evidence_recall.py. Writes, with the cap on the kept share (`cap` 1: none) and the threshold of what is kept
(the paper's under every cap, the others without one):

- results/glimpse_questions.csv: for every model, cap, threshold and question `correct`, `random_correct` (the same with
  as many tokens behind the same layer drawn by lot; without a cap, at the paper's threshold), `kept_share`, FLOPs as a
  share of the unpruned model's (`flops`), the share of the tokens that are evidence (`evidence_share`), the highest
  recall of it that the cap allows (`recall_bound`), and the mask's quality;
- results/glimpse_masks.csv: their means by model, cap, threshold and group of questions, accuracy with its interval;
- results/glimpse_examples.csv: what the first model keeps for two questions about each of a few images, without a cap.
"""

import json
from pathlib import Path

import pandas as pd

from experiments import stage
from experiments.asking import benchmarks
from experiments.parameters.load import Parameters
from experiments.probing.masks import (
    MEASURES,
    PAPER_THRESHOLD,
    rules_of,
    run,
    summary,
)
from experiments.recorded.cells import write_text

QUESTIONS = Path("results/glimpse_questions.csv")
RESULT = Path("results/glimpse_masks.csv")
EXAMPLES = Path("results/glimpse_examples.csv")
EXAMPLE_TYPES = ("attribute", "reading")


def examples(questions: pd.DataFrame, images: int) -> pd.DataFrame:
    """Questions of EXAMPLE_TYPES about the first images that have all of them; kept tokens as a JSON list."""
    uncapped = questions[(questions["cap"] == questions["cap"].max()) & (questions["threshold"] == PAPER_THRESHOLD)]
    uncapped = uncapped.assign(image=uncapped["id"].str.rsplit("-", n=1).str[0])
    shown = uncapped[uncapped["type"].isin(EXAMPLE_TYPES)]
    complete = shown.groupby("image", sort=True)["type"].nunique() == len(EXAMPLE_TYPES)
    shown = shown[shown["image"].isin(complete.index[complete][:images])].sort_values(["image", "type"])
    columns = ["image", "id", "type", "answer", "prediction", "correct", "visual_tokens", "kept_share", "kept"]
    return shown.assign(kept=shown["kept"].map(json.dumps))[columns]


def write(parameters: Parameters) -> None:
    """The three tables."""
    settings, asked = parameters.evaluate, parameters.glimpse_masks
    benchmark = benchmarks.load(settings.benchmark, settings.questions, settings.seed)
    each = {model: run(model, rules_of(path, asked), benchmark, settings) for model, path in asked.modules.items()}
    questions = pd.concat([table.assign(model=model) for model, table in each.items()])
    columns = ["model", "id", "type", "cap", "threshold", "correct", "random_correct", *MEASURES]
    write_text(QUESTIONS, questions[columns].round(4).to_csv(index=False))
    means = summary(questions, ["model", "cap", "threshold"], settings.benchmark, parameters.accuracy)
    write_text(RESULT, means.to_csv(index=False))
    write_text(EXAMPLES, examples(next(iter(each.values())), asked.images).to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
