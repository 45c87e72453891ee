"""Published numbers, read from data/published/, and their own tables; none of them was measured here."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.recorded.by_type import ALL
from experiments.reports import formats

FOLDER = Path("data/published")
COLUMNS = ["method", "model", "setting", "tokens", "metric", "value", "paper", "arxiv", "table"]
HEADING = "Published numbers (not ours)"
VISUAL_TOKENS = 576  # of LLaVA-1.5, before pruning


@dataclass(frozen=True)
class Block:
    """How one file is laid out: `rows` are the columns that name a row, `columns` the one spread out sideways."""

    title: str
    rows: tuple[str, ...]
    columns: str
    warning: str = ""


BLOCKS = {
    "relative_accuracy": Block(
        "Performance relative to the unpruned model (%), by visual tokens", ("method",), "tokens"
    ),
    "efficiency": Block(
        "Cost of a question",
        ("method", "tokens"),
        "metric",
        "The rows labelled 640 and 160 tokens carry values that were measured at 720 and 145 tokens.",
    ),
    "selection_score": Block("Accuracy when tokens are selected by one score", ("method",), "setting"),
    "attention_shift": Block(
        "Attention to, and performance with, quartiles of token position", ("method", "setting"), "metric"
    ),
    "sequential_prune": Block("Step of Sequential Prune", ("setting",), "metric"),
    "glimpseprune": Block("Free-form answers under a cap on the tokens kept", ("setting", "method"), "metric"),
    "headlines": Block("Headline claims", ("method", "model", "metric"), "setting"),
}


def read(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """One file of published values, all columns as text: 83.0 stays 83.0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: other columns, a value that is no number, or two values for one cell of its table.
    """
    path = folder / f"{name}.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if table.columns.tolist() != COLUMNS:
        raise ValueError(f"{path} has the columns {', '.join(table.columns)}; expected {', '.join(COLUMNS)}")
    values = pd.to_numeric(table["value"], errors="coerce")
    if values.isna().any():
        raise ValueError(f"{path}: no number in column value: {table['value'][values.isna()].tolist()}")
    keys = [*BLOCKS[name].rows, BLOCKS[name].columns]
    if table.duplicated(keys).any():
        raise ValueError(f"{path} has two values for {table[table.duplicated(keys)][keys].iloc[0].tolist()}")
    return table


def layout(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The values of one file as a table, in the order of the file, empty where nothing is published."""
    block = BLOCKS[name]
    cells = table.set_index([*block.rows, block.columns])["value"]
    wide = cells.unstack(block.columns, sort=False, fill_value="").reset_index()
    return wide.rename_axis(columns=None)


def source(name: str, table: pd.DataFrame) -> str:
    """Where the values of one file were printed, and what to mind."""
    papers = table[["paper", "arxiv", "table"]].drop_duplicates().to_dict("records")
    printed = [
        f"{row['paper']}{' (arXiv:' + row['arxiv'] + ')' if row['arxiv'] else ''}, {row['table']}" for row in papers
    ]
    models = ", ".join(table["model"].unique())
    return " ".join(part for part in (f"{models}. As printed in {'; '.join(printed)}.", BLOCKS[name].warning) if part)


def markdown(folder: Path = FOLDER) -> str:
    """All blocks, each under its own heading."""
    parts = [f"# {HEADING}"]
    for name, block in BLOCKS.items():
        table = read(name, folder)
        parts += [f"## {block.title}", formats.markdown(layout(name, table)), source(name, table)]
    return "\n\n".join(parts) + "\n"


def latex(folder: Path = FOLDER) -> str:
    """All blocks, one `table` environment each, its caption starting with `HEADING`."""
    parts = []
    for name, block in BLOCKS.items():
        table = read(name, folder)
        caption = f"{HEADING}. {block.title}. {source(name, table)}"
        parts.append(formats.latex(layout(name, table), caption, f"published_{name}"))
    return "\n".join(parts)


def beside_ours(accuracy: pd.DataFrame, folder: Path = FOLDER) -> pd.DataFrame:
    """Percent of the unpruned model's performance: published columns first, then ours at the same share of tokens.

    Args:
        accuracy: accuracy.csv. Without its unpruned model, or without a budget, those cells of ours are empty.
    """
    printed = layout("relative_accuracy", read("relative_accuracy", folder)).set_index("method")
    overall = accuracy[accuracy["type"] == ALL]
    full = overall.loc[overall["method"] == "full", "accuracy"].max()
    columns = {f"published, {tokens} tokens": printed[tokens].tolist() for tokens in printed}
    for tokens in printed:
        share = int(tokens) / VISUAL_TOKENS
        matching = overall[(overall["budget"] - share).abs() < 0.001].set_index("method")
        columns[f"ours, {share:.1%}"] = [_ours(matching, method, full) for method in printed.index]
    return pd.DataFrame({"method": printed.index} | columns)


def _ours(matching: pd.DataFrame, method: str, full: float) -> str:
    if method not in matching.index or pd.isna(full):
        return ""
    row = matching.loc[method]
    return f"{100 * row['accuracy'] / full:.1f}" if row["feasible"] else f"floor {row['floor']:.1f}"


def beside_ours_caption(accuracy: pd.DataFrame, folder: Path = FOLDER) -> str:
    """Which columns are whose."""
    ours = accuracy[accuracy["feasible"] & (accuracy["type"] == ALL)].iloc[0]
    table = read("relative_accuracy", folder)
    return (
        'Percent of the unpruned model\'s performance. Columns "published": '
        f"{source('relative_accuracy', table)} Tokens are counted as the paper counts them, of {VISUAL_TOKENS}. "
        f'Columns "ours": {ours["model"]} on {ours["benchmark"]}, n = {ours["n"]}, at the same share of its visual '
        "tokens, mean over the decoder layers; a floor is the fewest mean visual tokens that the method reaches there. "
        "Other models, other questions: the two halves are not to be subtracted."
    )
