"""From accuracy, FLOPs and latency to the points on the Pareto fronts."""

import pandas as pd

from experiments import pareto

NAMES = {"model": "m", "benchmark": "b"}


def role(method: str) -> str:
    return "oracle" if method.startswith("oracle") else "before"


def test_fronts_leave_out_the_oracle_and_what_was_not_measured() -> None:
    #          method, budget, accuracy, FLOPs, latency
    points = [
        ("full", 1.0, 0.9, 1.0, 1.0),
        ("oracle", 0.5, 0.95, 0.4, 0.4),
        ("oracle_inside", 0.5, 0.96, 0.4, 0.4),
        ("a", 0.5, 0.85, 0.5, 0.8),
    ]
    points += [("a", 0.2, 0.6, 0.2, None), ("b", 0.5, 0.8, 0.55, 0.7)]
    accuracy = [
        NAMES | {"type": kind, "method": method, "role": role(method), "budget": budget, "feasible": True}
        | {"accuracy": value if kind == "all" else 0.5, "ci_low": value - 0.1, "ci_high": value + 0.1}
        for method, budget, value, *_ in points
        for kind in ("all", "several_looks", "reading")
    ]  # fmt: skip
    accuracy.append(NAMES | {"type": "all", "method": "b", "role": "before", "budget": 0.2, "feasible": False})
    flops = [NAMES | {"method": m, "budget": budget, "ratio_to_full": cost} for m, budget, _, cost, _ in points]
    latency = [
        NAMES | {"method": method, "budget": budget, "ratio": cost, "ratio_low": cost, "ratio_high": cost}
        for method, budget, *_, cost in points
        if cost is not None
    ]
    table = pareto.table(pd.DataFrame(accuracy), pd.DataFrame(flops), pd.DataFrame(latency))
    assert len(table) == 12 and set(table["type"]) == {"all", "several_looks"}
    several = table[table["type"] == "several_looks"].set_index(["method", "budget"])
    assert several.index[several["on_flops_front"]].tolist() == [("a", 0.2)], "a front of their own"
    table = table[table["type"] == "all"]
    table = table.set_index(["method", "budget"])
    assert table.index[table["on_flops_front"]].tolist() == [("full", 1.0), ("a", 0.5), ("a", 0.2)]
    assert table.index[table["on_latency_front"]].tolist() == [("full", 1.0), ("a", 0.5), ("b", 0.5)]
    assert pd.isna(table.loc[("a", 0.2), "latency_ratio"])
