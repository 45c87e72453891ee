"""FLOPs of every method and budget, averaged over the questions: `python -m experiments.flops`.

Writes results/flops.csv: vision tower, projector, decoder, what the method spends on choosing, their total (the whole
prefill), one decoded token, and the total as a share of the unpruned model's. The stage `evaluate` counted them for
each question.
"""

import pandas as pd

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import paths, predictions
from experiments.recorded.cells import write_text
from experiments.recorded.predictions import TERMS

RESULT = paths.FLOPS


def table(parameters: Parameters) -> pd.DataFrame:
    """One row per feasible method and budget; FLOPs are means over the questions, rounded to whole numbers."""
    rows = []
    for cell in predictions.read(parameters.evaluate, ["visual_tokens_per_layer", "flops"]):
        if not cell.feasible:
            continue
        means = pd.DataFrame(cell.answers["flops"].to_list()).mean()
        visual_tokens = cell.answers["visual_tokens_per_layer"].map(lambda counts: counts.mean()).mean()
        head = {"model": parameters.model, "benchmark": parameters.evaluate.benchmark}
        row = {"method": cell.method, "budget": cell.budget, "mean_visual_tokens": round(visual_tokens, 3)}
        row |= {name: round(means[name]) for name in TERMS}
        rows.append(head | row | {"ratio_to_full": round(means["total"] / means["full"], 6)})
    return pd.DataFrame(rows)


def write(parameters: Parameters) -> None:
    """The table."""
    write_text(RESULT, table(parameters).to_csv(index=False))


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
