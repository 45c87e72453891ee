"""Whether pruning is right on a GPU, and what it saves there: `python -m experiments.gpu_report --minutes 8`.

Needs no download: correctness is checked on the embedded and on tiny random models, times are those of LLaVA-NeXT-7B,
LLaVA-1.5-7B and Qwen2.5-VL-7B with random weights, whose work is that of the real ones. `--tiny` goes the same way with
tiny models, on a CPU too. Parts run in the order of importance and stop in time; after each one, and after every round
of timings, what is measured so far is on the disk:

- `gpu_device.json`: device, driver, clocks before and after, versions, what was not finished;
- `gpu_correctness.csv`: for every method, kept sets against the CPU's in float32, pruned against masked logits, and
  host synchronisations beyond the unpruned model's;
- `gpu_report.csv`: prefill, decoding and memory beside the full model and beside a prompt as short from the start;
- `gpu_launches.csv`: kernels launched while choosing.

See docs/gpu.md.
"""

import argparse
import gc
import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from experiments.gpu import correctness, full_size, launches
from experiments.gpu.output import Deadline, message, write_rows, write_text
from experiments.gpu.shapes import SHAPES
from experiments.gpu.subjects import EMBEDDED, Subject, subject

PART = Callable[[Deadline], None]
SETTING = tuple[torch.dtype, str, bool]  # dtype, attention, whether one of two prompts is padded
QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,temperature.gpu,pstate"
DEFAULT: list[SETTING] = [(torch.float32, "sdpa", False), (torch.bfloat16, "sdpa", False)]
OTHERS: list[SETTING] = [
    (torch.float32, "sdpa", True),
    (torch.float16, "sdpa", False),
    *((torch.bfloat16, attention, False) for attention in ("sdpa flash", "sdpa efficient", "eager", "sdpa math")),
    (torch.bfloat16, "sdpa", True),
    *((torch.float32, attention, False) for attention in ("sdpa efficient", "sdpa math", "eager")),
    *((torch.float16, attention, False) for attention in ("sdpa flash", "sdpa efficient", "eager", "sdpa math")),
    (torch.float16, "sdpa", True),
]


class Report:
    """Runs the parts in their order and keeps what they measured on the disk."""

    def __init__(self, device: torch.device, output: Path, minutes: float, tiny: bool) -> None:
        self.device, self.output, self.tiny = device, output, tiny
        self.deadline = Deadline(60 * minutes)
        self.checks: list[dict[str, Any]] = []
        self.times: list[dict[str, Any]] = []
        self.kernels: list[dict[str, Any]] = []
        self.about: dict[str, Any] = surroundings(device) | {"minutes": minutes, "tiny": tiny, "unfinished": []}
        self._subjects: dict[str, Subject] = {}
        self._references: dict[tuple[str, bool], Any] = {}

    def run(self) -> None:
        """Every part, each in a try of its own."""
        self.save()
        shares = dict(zip(SHAPES, (0.45, 0.5, 0.6), strict=True))
        parts: list[tuple[str, float, PART]] = [
            ("correctness of scenes-llava", 0.3, partial(self.check, "scenes-llava", DEFAULT)),
            *((f"timings of {name}", shares[name], partial(self.time, name)) for name in SHAPES),
            ("launches", 0.5, self.launch),
            ("correctness of scenes-llava, all kernels", 0.4, partial(self.check, "scenes-llava", OTHERS)),
            *(
                (f"correctness of {name}", share, partial(self.check, name, DEFAULT + OTHERS))
                for name, share in (("scenes-qwen", 0.4), *zip(SHAPES, (0.33, 0.5, 1.0), strict=True))
            ),
        ]
        for name, share, part in parts:
            if self.deadline.over:
                self.unfinished(name, "the time was over")
                continue
            left = self.deadline.share(share)
            try:
                part(left)
                if left.over:
                    self.unfinished(name, "its share of the time was over")
            except Exception as error:  # one part must not cost the others
                self.unfinished(name, message(error))
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            print(f"{name}: {self.deadline.left:.0f} s left", flush=True)
            self.save()
        self.about["clocks"]["after"] = clocks(self.device)
        self.save()

    def unfinished(self, part: str, why: str) -> None:
        self.about["unfinished"].append({"part": part, "why": why})
        print(f"{part}: {why}", flush=True)

    def save(self) -> None:
        write_rows(self.output / "gpu_correctness.csv", correctness.COLUMNS, self.checks)
        write_rows(self.output / "gpu_report.csv", ("device", *full_size.COLUMNS), self._with_device(self.times))
        write_rows(self.output / "gpu_launches.csv", ("device", *launches.COLUMNS), self._with_device(self.kernels))
        write_text(self.output / "gpu_device.json", json.dumps(self.about, indent=1) + "\n")

    def _with_device(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"device": self.about["device"]} | row for row in rows]

    def check(self, name: str, settings: Sequence[SETTING], left: Deadline) -> None:
        """Rows of a subject in these settings."""
        if name not in self._subjects:
            self._subjects[name] = subject(name)
        one = self._subjects[name]
        fitting = [setting for setting in settings if one.padded is not None or not setting[2]]
        with exact_convolutions():
            for dtype, attention, padded in fitting[: 2 if self.tiny else None]:
                if left.over:
                    return
                if (name, padded) not in self._references:
                    self._references[name, padded] = correctness.references(one, padded)
                setting = correctness.Setting(one, self.device, dtype, attention, padded)
                self.checks += setting.rows(left, self._references[name, padded])
                self.save()

    def time(self, name: str, left: Deadline) -> None:
        """Rows of a full-size model."""
        dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        with torch.inference_mode():
            report = full_size.Report(SHAPES[name](self.tiny), self.device, dtype)
        earlier = self.times

        def save() -> None:
            self.times = earlier + report.rows()
            self.save()

        try:
            report.measure(left, save, repeats=3 if self.tiny else full_size.REPEATS)
        finally:
            self.about["clocks"][name] = clocks(self.device)
            save()
            report.close()

    def launch(self, left: Deadline) -> None:
        """Kernels of choosing on the model with most visual tokens."""
        for row in launches.rows(SHAPES["llava-next-7b"](self.tiny), self.device, left):
            self.kernels.append(row)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in float32 that are not rounded to TF32, which PyTorch allows: the patches go through one."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def surroundings(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "embedded": list(EMBEDDED),
        "clocks": {"before": clocks(device)},
    }


def clocks(device: torch.device) -> dict[str, str]:
    """What nvidia-smi says about the device now; nothing where there is none."""
    if device.type != "cuda":
        return {}
    try:
        asked = subprocess.run(
            ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": message(error)}
    return dict(zip(QUERY.split(","), asked.stdout.splitlines()[0].split(", "), strict=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which it stops (default: 8)")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files (default: results)")
    parser.add_argument("--tiny", action="store_true", help="tiny models: a try-out, also on a CPU")
    options = parser.parse_args(arguments)
    cuda = torch.cuda.is_available()
    if not cuda and not options.tiny:
        parser.exit(1, "error: there is no GPU here: give --tiny to try it out on the CPU\n")
    options.output.mkdir(parents=True, exist_ok=True)
    Report(torch.device("cuda" if cuda else "cpu"), options.output, options.minutes, options.tiny).run()


if __name__ == "__main__":
    main()
