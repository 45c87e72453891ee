"""What choosing costs beside the prefill it shortens, and beside choosing token by token.

    python -m experiments.benchmark_selection                  # the whole table on this CPU, one thread a core
    python -m experiments.benchmark_selection --quick          # 576 visual tokens only
    python -m experiments.benchmark_selection --device cuda --dtype float16

Every method chooses from random features of LLaVA-1.5-7B's sizes, 60 text tokens beside the visual ones, whatever it
looks at (attention rows, similarities) included. Beside it stand

- the prefill of the same decoder: one layer of 4096 hidden units, 32 heads and an MLP of 11008 is run on all tokens and
  its time multiplied by 32; embeddings, the head and the vision tower do not count. On a CPU a layer that would take
  longer than --limit seconds is not run: its time is that of the longest one run, scaled by FLOPs ("from N tokens").
  For batches of several images it is scaled in the same way from a single one.
- the same choice step by step (experiments/speed/references.py): plain loops over images and picks. For several
  images it is that of one times their number, as it takes one image after the other.

A time is the median over the repeats, after one warm-up; ours, step by step and the layer take turns. What takes longer
is repeated less, above a quarter of a second not at all. Up to 576 tokens both choices are compared index by index, in
float64.
On a machine that others use, OMP_NUM_THREADS=1 and --clock cpu count the process's own time instead of the wall's.

GlimpsePrune has random modules; its token's way through the layers in front of the choice does not count. Methods that
prune before the language model and inside it (`sequence`, `vscan`) are not timed, nor those for videos.

Prints the table and writes results/benchmark_selection.csv: rows of the same device, dtype, threads, versions and case
are replaced, all others stay.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers

from experiments.recorded.cells import write_text
from experiments.speed import references
from experiments.speed.inputs import Inputs, Widths, decoder, method_for, untrained_glimpse
from experiments.speed.timing import Clock, Prefill, medians, ours, same_choice, step_by_step
from pruning import registry
from pruning.choosing.base import Method
from pruning.glimpse.modules import GlimpseModules

RESULT = Path("results/benchmark_selection.csv")
CHECKED = 576
# `full` chooses nothing; what acts twice has no single choice, and videos have frames.
NOT_A_CHOICE = (
    "full",
    *registry.of_role("both"),
    *(name for name in registry.names() if registry.get(name).videos_only),
)
CASE = ["device", "dtype", "threads", "torch", "transformers", "visual_tokens", "keep", "batch", "method"]
MOST_ON_CPU = 8_000  # visual tokens of a batch; beyond, several images count as so many times one


@dataclass(frozen=True)
class Cases:
    """What is measured; rasters are rows and columns of visual tokens: 576, 2880 and 8192 of them."""

    rasters: Sequence[tuple[int, int]] = ((24, 24), (48, 60), (64, 128))
    keeps: Sequence[int] = (64, 128, 320, 640)
    batches: Sequence[int] = (1, 8)
    widths: Widths = field(default_factory=Widths)


class Table:
    """Measures number of tokens by number of tokens, fewest first, and holds what larger cases are scaled from."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, repeats: int, limit: float, clock: str, widths: Widths
    ) -> None:
        self.device, self.dtype, self.repeats, self.limit = device, dtype, repeats, limit
        self.clock_kind, self.clock = clock, Clock(device, clock)
        self.widths, self.family = widths, decoder(device, dtype, widths)
        self.glimpse = untrained_glimpse(self.family)
        self.prefill = Prefill(self.family, limit)
        self.rows: list[dict[str, Any]] = []
        self._single: dict[tuple[str, int], float] = {}  # seconds for one image of the latest number of tokens
        self._steps: dict[tuple[str, int], tuple[int, float]] = {}  # tokens and seconds of the largest run so far

    def add(self, rows: int, columns: int, keeps: Sequence[int], batches: Sequence[int]) -> None:
        """Measure all methods on images of `rows` x `columns` visual tokens."""
        num_visual = rows * columns
        same = self._check(rows, columns, keeps) if num_visual <= CHECKED else {}
        for images in batches:
            methods = methods_for(keeps, num_visual, images, self.glimpse)
            timed: dict[Any, Callable[[], float]] = {}
            scaled = self.device.type == "cpu" and images > 1 and images * num_visual > MOST_ON_CPU
            inputs = None if scaled else Inputs(self.family, images, rows, columns)
            if inputs is not None:
                timed |= self.prefill.runs(inputs, self.clock)
                for case, method in methods.items():
                    timed["ours", case] = partial(ours, method, inputs, self.clock)
                    if images == 1 and self._worth_stepping(case, num_visual):
                        timed["steps", case] = partial(step_by_step, method, inputs, self.clock)
            seconds = medians(timed, self.repeats)
            prefill = self.prefill.seconds(images, num_visual, seconds.get("layer"))
            for case in methods:
                if images == 1:
                    self._single[case] = seconds["ours", case]
                if ("steps", case) in seconds:
                    self._steps[case] = num_visual, seconds["steps", case]
                own = images * self._single[case] if scaled else seconds["ours", case]
                self.rows.append(self._row(case, num_visual, images, own, scaled, prefill, same.get(case)))
            if inputs is not None:
                inputs.release()

    def _check(self, rows: int, columns: int, keeps: Sequence[int]) -> dict[tuple[str, int], bool]:
        """Of every case that has a step-by-step version, whether it chooses the same tokens in float64."""
        inputs = Inputs(decoder(self.device, torch.float64, self.widths), 1, rows, columns)
        methods = methods_for(keeps, rows * columns, 1, self.glimpse)
        return {case: same_choice(method, inputs) for case, method in methods.items() if has_steps(case[0])}

    def _worth_stepping(self, case: tuple[str, int], num_visual: int) -> bool:
        if not has_steps(case[0]):
            return False
        before, seconds = self._steps.get(case, (num_visual, 0.0))
        return seconds * (num_visual / before) ** 3 <= self.limit  # at worst: rounds x products of all pairs

    def _row(
        self,
        case: tuple[str, int],
        num_visual: int,
        images: int,
        seconds: float,
        scaled: bool,
        prefill: tuple[float, str],
        same: bool | None,
    ) -> dict[str, Any]:
        name, keep = case
        steps_of, steps = self._steps.get(case, (0, 0.0))
        known = steps_of == num_visual
        return {
            **setting(self.device, self.dtype),
            "visual_tokens": num_visual,
            "keep": keep,
            "batch": images,
            "method": name,
            "choosing_ms": 1e3 * seconds,
            "choosing_from": f"{images} x one image" if scaled else "measured",
            "prefill_ms": 1e3 * prefill[0],
            "prefill_from": prefill[1],
            "share_of_prefill": seconds / prefill[0],
            "step_by_step_ms": 1e3 * images * steps if known else None,
            "step_by_step_from": _steps_source(name, known, images),
            "times_faster": images * steps / seconds if known else None,
            "same_choice": same,
            "repeats": self.repeats,
            "clock": self.clock_kind,
        }


def _steps_source(name: str, known: bool, images: int) -> str:
    if not has_steps(name):
        return "nothing is picked one by one"
    if not known:
        return "not run: over the limit"
    return "measured" if images == 1 else f"{images} x one image"


def has_steps(name: str) -> bool:
    """Whether there is a step-by-step version."""
    return name in references.BEFORE or name in references.INSIDE


def methods_for(
    keeps: Sequence[int], num_visual: int, images: int, glimpse: GlimpseModules
) -> dict[tuple[str, int], Method]:
    """The methods by name and number kept; those that can keep so many."""
    names = [name for name in registry.names() if name not in NOT_A_CHOICE]
    cases = {(name, keep): method_for(name, keep, num_visual, images, glimpse) for keep in keeps for name in names}
    return {case: method for case, method in cases.items() if method is not None}


def setting(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Where and with what was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": name,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def processor() -> str:
    """The name of the CPU, where the system tells it."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def save(path: Path, rows: pd.DataFrame) -> None:
    """Add the rows to the file; of a case measured before, in the same setting, the new row stays."""
    if path.exists():
        earlier = pd.read_csv(path)
        if list(earlier.columns) != list(rows.columns):
            raise ValueError(f"{path} has other columns than this version writes: move it away")
        measured = pd.MultiIndex.from_frame(rows[CASE])
        earlier = earlier[~pd.MultiIndex.from_frame(earlier[CASE]).isin(measured)]
        rows = pd.concat([earlier.astype(object), rows.astype(object)]) if len(earlier) else rows
    write_text(path, rows.to_csv(index=False, float_format="%.5g"))


def printed(rows: pd.DataFrame) -> str:
    """The table for the terminal, one line a case."""
    shown = rows[["visual_tokens", "keep", "batch", "method", "choosing_ms"]].copy()
    shown["% of prefill"] = 100 * rows["share_of_prefill"]
    shown["x step by step"] = rows["times_faster"]
    shown["same choice"] = rows["same_choice"].map({True: "yes", False: "NO"}).fillna("")
    sources = "\n".join(
        f"{row.visual_tokens} tokens, batch {row.batch}: prefill {row.prefill_ms / 1e3:.3g} s, from {row.prefill_from}"
        for row in rows.drop_duplicates(["visual_tokens", "batch"]).itertuples()
    )
    return f"{shown.to_string(index=False, float_format='{:.3g}'.format, na_rep='')}\n\n{sources}"


def main(arguments: Sequence[str] | None = None, cases: Cases = Cases()) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark_selection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--quick", action="store_true", help="576 visual tokens only")
    parser.add_argument("--repeats", type=int, default=5, help="of everything that is quick")
    parser.add_argument("--limit", type=float, default=20, help="seconds that a layer or step-by-step choice may take")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: where others use the machine")
    options = parser.parse_args(arguments)
    try:
        device = usable(options.device)
        if options.repeats < 1 or not options.limit > 0:
            raise ValueError("--repeats must be at least 1 and --limit above 0")
        if options.clock == "cpu" and device.type != "cpu":
            raise ValueError("--clock cpu times the CPU: leave it out on another device")
        if options.clock == "cpu" and torch.get_num_threads() > 1:
            raise ValueError("--clock cpu adds up the time of all threads: set OMP_NUM_THREADS=1")
        with torch.inference_mode():
            dtype = getattr(torch, options.dtype)
            measured = Table(device, dtype, options.repeats, options.limit, options.clock, cases.widths)
            for rows, columns in cases.rasters[: 1 if options.quick else None]:
                measured.add(rows, columns, cases.keeps, cases.batches)
        table = pd.DataFrame(measured.rows)
        save(RESULT, table)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    print(printed(table))


def usable(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: there is none.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either where it was built without the device
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}): give cpu, or cuda on a GPU") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name} is neither cpu nor cuda")
    return device


if __name__ == "__main__":
    main()
