"""What was asked and what was measured: visual tokens of every method and budget."""

import json
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from experiments.parameters.sections import Evaluate
from experiments.recorded import predictions

_PER_LAYER = "visual_tokens_per_layer"


def numbers(settings: Evaluate) -> pd.DataFrame:
    """One row for each method and budget, in the order of the parameters.

    Columns: `asked` mean visual tokens (budget x visual tokens of the prompt, mean over questions); `measured`, the
    mean over decoder layers and questions of the visual tokens that entered; `lowest` and `highest` question's mean
    over layers; `deviation` of measured from asked, and as a share of asked; the mean over questions for each layer
    (JSON); the parameter solved for and its value; where no setting comes near the budget, `feasible` is False and
    `floor` says what the method reaches.

    Raises:
        FileNotFoundError, ValueError: the predictions are missing or of other budgets.
    """
    cells = list(predictions.read(settings, ["parameters", "visual_tokens", _PER_LAYER]))
    whole = next((cell.answers["visual_tokens"].mean() for cell in cells if cell.feasible), np.nan)
    rows = []
    for cell in cells:
        row = {"method": cell.method, "budget": cell.budget, "asked": cell.budget * whole, "feasible": cell.feasible}
        if cell.feasible:
            layers = np.stack(cell.answers[_PER_LAYER].to_list())
            of_question, measured = layers.mean(1), float(layers.mean())
            row |= {"measured": measured, "lowest": of_question.min(), "highest": of_question.max()}
            row |= {"deviation": measured - row["asked"], "deviation_share": measured / row["asked"] - 1}
            row |= {_PER_LAYER: json.dumps([round(float(mean), 2) for mean in layers.mean(0)]).replace(".0", "")}
            row |= {"parameter": cell.budget_parameter}
            row |= {"value": _values(cell.answers["parameters"], cell.budget_parameter)}
        rows.append(row | {"floor": cell.floor})
    return pd.DataFrame(rows).round({"asked": 3, "measured": 3, "deviation": 3, "deviation_share": 5})


def _values(parameters: pd.Series, parameter: str | None) -> str | None:
    """The values solved for; images of several sizes may have several."""
    if parameter is None:
        return None
    return ", ".join(f"{value:g}" for value in sorted({json.loads(text)[parameter] for text in parameters.unique()}))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`numbers` as text for Markdown and LaTeX."""
    return pd.DataFrame([_shown(row) for row in table.to_dict("records")])


def _shown(row: dict) -> dict[str, str]:
    head = {"method": row["method"], "budget": f"{row['budget']:.1%}", "asked": f"{row['asked']:.1f}"}
    if not row["feasible"]:
        empty = dict.fromkeys(("measured", "lowest", "highest", "deviation", "by layer", "setting"), "")
        return head | empty | {"floor": f"{row['floor']:.1f}"}
    return head | {
        "measured": f"{row['measured']:.1f}",
        "lowest": f"{row['lowest']:.1f}",
        "highest": f"{row['highest']:.1f}",
        "deviation": f"{row['deviation_share']:+.1%}",
        "by layer": runs(json.loads(row[_PER_LAYER])),
        "setting": "" if pd.isna(row["parameter"]) else f"{row['parameter']} = {row['value']}",
        "floor": "",
    }


def runs(per_layer: Sequence[float]) -> str:
    """Equal neighbours together: [144, 36, 36] is "144, 2 x 36"."""
    groups = [(value, len(list(same))) for value, same in groupby(per_layer)]
    return ", ".join(f"{count} x {value:g}" if count > 1 else f"{value:g}" for value, count in groups)


def caption(table: pd.DataFrame) -> str:
    """What the columns are, and the worst deviation."""
    text = (
        "Visual tokens asked for and measured, as means over the decoder layers' inputs. Lowest and highest: of all "
        "questions; by layer: mean over the questions, first layer first. Where no setting of a method comes within 5% "
        "of a budget, or half a token: its floor, the fewest mean visual tokens that it reaches."
    )
    if not table["feasible"].any():
        return text
    worst = table.loc[table["deviation_share"].abs().idxmax()]
    return (
        f"{text} Worst deviation: {worst['method']} at {worst['budget']:.1%}, {worst['measured']:.1f} for "
        f"{worst['asked']:.1f} tokens ({worst['deviation_share']:+.1%})."
    )
