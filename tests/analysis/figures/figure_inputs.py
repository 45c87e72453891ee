"""Small CSV files as the pipeline writes them, for the tests of the figures."""

import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from experiments.second_model import DIFFICULT_COLUMNS
from tests.analysis.figures.setting_inputs import TYPES, write_positions, write_score_kept, write_settings

BUDGETS = (0.75, 0.5, 0.333, 0.222, 0.111, 0.056)
METHODS = ("full", "random", "grid", "oracle", "vispruner", "sequential_prune", "fastv")
MERGING = "vispruner"  # in the made-up kept_tokens.csv
PUBLISHED = Path(__file__).parents[3] / "data/published"
INSIDE = ("sequential_prune", "fastv", "sparsevlm", "pyramiddrop", "dart", "vtw", "glimpse")


def write_accuracy(folder: Path, methods: tuple[str, ...] = METHODS, tokens: int = 144, layers: int = 8) -> None:
    """A small accuracy.csv as the pipeline writes it; accuracy falls with the budget, faster for some methods."""
    rows = []
    for rank, method in enumerate(methods):
        for budget in (1.0,) if method == "full" else BUDGETS:
            mean = budget * tokens
            feasible = not (method in INSIDE and budget < 0.3)
            if method in INSIDE:
                after = max((mean * layers - 2 * tokens) / (layers - 2), 0)
                counts = [tokens] * 2 + [round(after)] * (layers - 2)
            else:
                counts = [round(mean)] * layers
            for kind in TYPES:
                n = 600 if kind == "all" else 100
                loss = {"full": 0.0, "oracle": 0.02}.get(method, 0.05 + 0.01 * rank)
                accuracy = max(0.95 - loss * np.log2(1 / budget) / 2 - 0.01 * TYPES.index(kind), 0.05)
                half = 1.96 * np.sqrt(max(accuracy * (1 - accuracy), 0.01) / n)
                rows.append(
                    {
                        "model": "scenes-llava",
                        "benchmark": "scenes",
                        "type": kind,
                        "method": method,
                        "parameters": "{}",
                        "budget": budget,
                        "feasible": feasible,
                        "mean_visual_tokens": np.mean(counts) if feasible else np.nan,
                        "visual_tokens_per_layer": json.dumps(counts) if feasible else "",
                        "flops": 2e8 + 4e6 * float(np.mean(counts)) if feasible else np.nan,
                        "n": n,
                        "accuracy": accuracy if feasible else np.nan,
                        "ci_low": accuracy - half if feasible else np.nan,
                        "ci_high": accuracy + half if feasible else np.nan,
                    }
                )
    pd.DataFrame(rows).to_csv(folder / "accuracy.csv", index=False)


def write_kept_tokens(folder: Path, ids: list[str], methods: tuple[str, ...] = METHODS, tokens: int = 144) -> None:
    """A kept_tokens.csv for the given questions; methods inside the model drop tokens after two of eight layers."""
    rng = np.random.default_rng(0)
    rows = []
    for number, name in enumerate(ids):
        for method in methods:
            none = [-1] * tokens
            entered = np.where(rng.random(tokens) < 0.33, 8, 2 if method in INSIDE else 0)
            rows.append(
                {
                    "id": name,
                    "type": TYPES[1 + number % 6],
                    "answer": "red",
                    "method": method,
                    "budget": 1.0 if method == "full" else 0.333,
                    "prediction": "red" if number % 2 else "blue",
                    "correct": bool(number % 2),
                    "layers": 8,
                    "layers_per_token": json.dumps((np.full(tokens, 8) if method == "full" else entered).tolist()),
                    "merged_into": json.dumps([0, 0, 0, 1, 1] + [-1] * (tokens - 5) if method == MERGING else none),
                }
            )
    pd.DataFrame(rows).to_csv(folder / "kept_tokens.csv", index=False)


def write_attention(folder: Path, tokens: int = 16, layers: int = 3) -> None:
    """The four attention CSV files, with made-up values."""
    rng = np.random.default_rng(0)
    queries = ("image", "text", "full", "last", "equi_last")
    shift = [(layer, q, t, rng.random() / tokens) for q in queries for layer in range(layers) for t in range(tokens)]
    shift += [("", "cls", t, rng.random() / tokens) for t in range(tokens)]
    pd.DataFrame(shift, columns=["layer", "query", "token", "attention"]).to_csv(
        folder / "attention_shift.csv", index=False
    )
    shares = [(layer, quartile, 0.1 * quartile) for layer in range(layers) for quartile in range(1, 5)]
    pd.DataFrame(shares, columns=["layer", "quartile", "share"]).to_csv(folder / "attention_quartiles.csv", index=False)
    selection = [(s, 1, 4, t, rng.random()) for s in ("last", "equi_last", "cls") for t in range(tokens)]
    columns = ["score", "layer", "keep", "token", "frequency"]
    pd.DataFrame(selection, columns=columns).to_csv(folder / "attention_selection.csv", index=False)
    x = (np.arange(200) + 0.5) / 200
    curves = [("cdf", x, np.sqrt(x)), ("density", x, np.where(x < 0.8, np.exp(-5 * x), 0.0))]
    dispersion = [
        pd.DataFrame({"score": score, "curve": curve, "x": x, "y": y})
        for score in ("last", "equi_last", "cls")
        for curve, x, y in curves
    ]
    pd.concat(dispersion).to_csv(folder / "attention_dispersion.csv", index=False)


def write_training(folder: Path) -> None:
    """A short training.csv of all phases."""
    decoder = {phase: ["counting"] for phase in ("words", "looks", "chains", "steps")}
    phases = decoder | {"vision": ["shape_right", "colour_right"]}
    rows = [
        {"phase": phase, "step": step, "seconds": step, "loss": 1 / (1 + step)} | dict.fromkeys(measures, step / 100)
        for phase, measures in phases.items()
        for step in (0, 50, 100)
    ]
    pd.DataFrame(rows).to_csv(folder / "training.csv", index=False)


def write_significance(folder: Path, methods: tuple[str, ...] = METHODS) -> None:
    """All pairs at two budgets: earlier methods are better, by 10 points a place; neighbours are not told apart."""
    rows = [
        {"type": kind, "budget": budget, "first": first, "second": second}
        | {"difference": sign * 0.1 * (j - i), "significant": j - i > 1}
        for kind, sign in (("all", 1), ("several_looks", -1))
        for budget in (0.5, 0.111)
        for (i, first), (j, second) in itertools.combinations(enumerate(methods), 2)
        if budget == 0.5 or "fastv" not in (first, second)
    ]
    pd.DataFrame(rows).to_csv(folder / "significance.csv", index=False)


def write_evidence_recall(folder: Path) -> None:
    """Recall and accuracy that fall together with the budget; `grid` merges."""
    accuracy = pd.read_csv(folder / "accuracy.csv")
    rows = accuracy[accuracy["feasible"]].rename(columns={"ci_low": "accuracy_low", "ci_high": "accuracy_high"})
    rows = rows.assign(recall=rows["budget"], merged=np.where(rows["method"] == "grid", 0.5, 0.0))
    rows["recall_last_layer"] = rows["recall"] / 2
    for column in ("recall", "recall_last_layer"):
        rows[f"{column}_low"], rows[f"{column}_high"] = 0.9 * rows[column], rows[column]
    rows.to_csv(folder / "evidence_recall.csv", index=False)


def write_score_correlation(folder: Path) -> None:
    """Three scores and all methods but the full model."""
    rows = [
        {"measure": measure, "budget": budget, "first": first, "second": second, "n": 600, "mean": 0.1 * (j - 2 * i)}
        for measure, budget, names in (("spearman", None, ("cls", "evidence", "fastv")), ("overlap", 0.5, METHODS[1:]))
        for (i, first), (j, second) in itertools.combinations(enumerate(names), 2)
    ]
    pd.DataFrame(rows).to_csv(folder / "score_correlation.csv", index=False)


def write_pareto(folder: Path) -> None:
    """FLOPs and latency rise with the budget; latency is known at two budgets and for the full model."""
    rows = pd.read_csv(folder / "accuracy.csv").query("type == 'all' and feasible")
    measured = ["accuracy", "ci_low", "ci_high"]
    several = rows.assign(type="several_looks", **{name: rows[name] / 2 for name in measured})
    rows = pd.concat([rows, several], ignore_index=True)
    rows = rows.assign(
        flops_ratio=0.2 + 0.8 * rows["budget"], on_flops_front=rows["method"].isin(["full", "vispruner"])
    )
    measured = rows["budget"].isin([1.0, 0.5, 0.111])
    rows["latency_ratio"] = rows["flops_ratio"].where(measured)
    rows["on_latency_front"] = rows["on_flops_front"] & measured
    for end, factor in (("low", 0.9), ("high", 1.1)):
        rows[f"latency_ratio_{end}"] = factor * rows["latency_ratio"]
    rows.to_csv(folder / "pareto.csv", index=False)


CAPS = (1.0, 0.333, 0.222, 0.111)


def write_glimpse(folder: Path) -> None:
    """GlimpsePrune by cap, single questions' kept shares, and two questions about each of two images."""
    rows = [
        {"model": model, "cap": cap, "type": kind, "accuracy": base + 0.1 * cap, "ci_low": base - 0.02 + 0.1 * cap}
        | {"ci_high": base + 0.05 + 0.1 * cap, "mean_visual_tokens": 90 + 54 * cap, "threshold": threshold}
        for model, threshold, base in (("tiny", 0.5, 0.8), ("tiny", 0.1, 0.5), ("other", 0.5, 0.3))
        for cap in CAPS
        for kind in TYPES
    ]
    pd.DataFrame(rows).to_csv(folder / "glimpse_masks.csv", index=False)
    swept = pd.DataFrame(rows).query("cap in (1.0, 0.111) and model == 'tiny' and threshold == 0.5")
    masks = {"precision": 0.6, "kept_share": 0.3, "random_accuracy": 0.5, "random_ci_low": 0.4, "random_ci_high": 0.6}
    depths = [swept.assign(reduce_layer=k, flops=0.5 + 0.1 * k, recall=0.2 * k, **masks) for k in (3, 1, 2)]
    pd.concat(depths).to_csv(folder / "glimpse_depth.csv", index=False)
    asked = [
        {"model": "tiny", "id": f"{kind}-{number}", "type": kind, "cap": cap, "threshold": 0.5}
        | {"kept_share": min(cap, 0.02 * place + 0.01 * number)}
        for cap in CAPS
        for place, kind in enumerate(TYPES[1:], start=1)
        for number in range(5)
    ]
    pd.DataFrame(asked).to_csv(folder / "glimpse_questions.csv", index=False)
    examples = [
        {"image": image, "id": f"{image}-{place}", "type": TYPES[1 + place], "answer": "red", "prediction": answer}
        | {"correct": answer == "red", "visual_tokens": 16, "kept_share": len(kept) / 16, "kept": json.dumps(kept)}
        for image in "ab"
        for place, (answer, kept) in enumerate([("red", [0, 5]), ("blue", [10, 11, 15])])
    ]
    pd.DataFrame(examples).to_csv(folder / "glimpse_examples.csv", index=False)


def write_depths(folder: Path) -> None:
    """The oracle inside the decoder, and dropping everything, from three layers on."""
    for method in ("oracle_inside", "vtw"):
        path = folder / f"ablation/{method}.csv"
        write_settings(path, {"k": (1, 2, 3)})
        table = pd.read_csv(path)
        table.assign(method=np.where(table["k"].isna(), "full", method)).to_csv(path, index=False)


def write_second_model(folder: Path) -> None:
    """Three methods at two image sizes; the last does not reach the lower budget."""
    rows = []
    for size, tokens in ((96, 144), (64, 64)):
        for place, (method, budget) in enumerate(
            [("full", 1.0), ("random", 0.5), ("random", 0.1), ("fastv", 0.5), ("fastv", 0.1)]
        ):
            feasible = (method, budget) != ("fastv", 0.1)
            accuracy = 0.9 - 0.05 * place if feasible else np.nan
            row = {"model": "scenes-qwen", "image_size": size, "method": method, "budget": budget, "type": "all"}
            row |= {"feasible": feasible, "mean_visual_tokens": budget * tokens, "accuracy": accuracy}
            rows.append(row | {"ci_low": accuracy - 0.05, "ci_high": accuracy + 0.05})
    pd.DataFrame(rows).to_csv(folder / "second_model.csv", index=False)
    largest = pd.DataFrame(rows).query("image_size == 96 and method != 'full'")
    groups = [largest.assign(group=group, n=n) for group, n in (("difficult", 12), ("easy", 48))]
    pd.concat(groups)[DIFFICULT_COLUMNS].to_csv(folder / "difficult_questions.csv", index=False)


def write_efficiency(folder: Path) -> None:
    """Measured on a CPU, whose peak memory is not known."""
    table = pd.DataFrame({"method": ["full", "glimpse", "fastv"], "batch_size": 4, "visual_tokens": 144})
    table = table.assign(device="a CPU", dtype="float32", threads=1)
    for short, unit, ratios in (("prefill", "ms", (1, 0.8, 0.5)), ("decode", "ms", (1, 0.95, 0.9)),
                                ("peak_memory", "mb", (np.nan,) * 3), ("kv_cache", "mb", (1, 0.2, 0.3))):  # fmt: skip
        ratio = np.array(ratios)
        columns = {f"{short}_{unit}": 20 * ratio, f"full_{short}_{unit}": 20.0, f"{short}_ratio": ratio}
        table = table.assign(**columns, **{f"{short}_ratio_low": 0.9 * ratio, f"{short}_ratio_high": 1.1 * ratio})
    table.to_csv(folder / "efficiency.csv", index=False)


def write_images(path: Path, ids: list[str]) -> None:
    """Example images as the benchmark's parquet file holds them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (24, 24), "#336699").save(buffer, "PNG")
    picture = {"bytes": buffer.getvalue(), "path": None}
    rows = [{"id": name, "image": picture, "question": "what ?", "boxes": [[0.1, 0.1, 0.4, 0.5]]} for name in ids]
    pd.DataFrame(rows).to_parquet(path)


def write_all(folder: Path) -> None:
    """Every CSV file the figures read, and the images beside them."""
    write_accuracy(folder)
    write_attention(folder)
    write_training(folder)
    write_significance(folder)
    write_evidence_recall(folder)
    write_score_correlation(folder)
    write_pareto(folder)
    write_settings(folder / "quartile_kept.csv", {"layer": (0, 1, 2), "quartile": (1, 2, 3, 4)})
    write_settings(folder / "reading_depth.csv", {"layer": (0, 1, 2)})
    write_score_kept(folder / "score_kept.csv")
    write_settings(folder / "ablation/vispruner.csv", {"keep": (8, 16), "important_ratio": (0, 0.5, 1)})
    write_settings(folder / "ablation/fastv.csv", {"k": (1, 2), "r": (0.5, 0.9)})
    write_positions(folder / "ablation")
    grid = {"step": (10, 25), "k": (1, 2, 3), "r": (0.5, 0.9)}
    write_settings(folder / "ablation/sequential_prune.csv", grid, short="k")
    shutil.copytree(PUBLISHED, folder / "data/published")
    write_kept_tokens(folder, ["a", "b"], tokens=16)
    write_glimpse(folder)
    write_depths(folder)
    write_second_model(folder)
    write_efficiency(folder)
    examples = ["a-0", "a-1", "b-0", "b-1"]
    write_images(folder / "data/scenes/evaluation.parquet", ["a", "b", "c", *examples])
