"""The published benchmarks that recipes may name. Only names: experiments/lmms and `viscot` beside this ask them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LMMS = "lmms-eval"
VISUAL_COT = "Visual-CoT"
# The authors of Visual-CoT's evaluation ask for short answers with these words (arXiv 2508.01548, option `brief`).
BRIEF = "\n\nAnswer the question using a single word or phrase."


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        source: who builds the prompts and scores: lmms-eval or Visual-CoT's files.
        task: its name there; for lmms-eval the task file, relative to its folder of tasks, without suffix.
        questions: how many it has as published, for estimates only.
        metric: the one that tables show; experiments/benchmarking/metrics.py has all of them.
        prompt: what the task's own prompt options are replaced by.
        judge: whether a language model scores the answers.
    """

    source: str
    task: str
    questions: int
    metric: str = "mean"
    prompt: Mapping[str, Any] = field(default_factory=dict)
    judge: bool = False


# Names are lmms-eval's, but for what has other options there.
_LMMS = {
    "pope": Benchmark(LMMS, "pope/pope", 9000, "f1"),
    "gqa": Benchmark(LMMS, "gqa/gqa", 12578),
    "textvqa_val": Benchmark(LMMS, "textvqa/textvqa_val", 5000),
    # With the "Reference OCR token" line, as LLaVA's own evaluation asks.
    "textvqa_val_ocr": Benchmark(LMMS, "textvqa/textvqa_val", 5000, prompt={"ocr": True}),
    "vqav2_val": Benchmark(LMMS, "vqav2/vqav2_val", 214354),
    "vqav2_val_lite": Benchmark(LMMS, "vqav2/vqav2_val_lite", 500),
    "vizwiz_vqa_val": Benchmark(LMMS, "vizwiz_vqa/vizwiz_vqa_val", 4319),
    "scienceqa_img": Benchmark(LMMS, "scienceqa/scienceqa_img", 2017),
    "mme": Benchmark(LMMS, "mme/mme", 2374, "perception"),
    "mmbench_en_dev_static": Benchmark(LMMS, "mmbench/mmbench_en_dev_static", 4329, "circular"),
    "mmstar": Benchmark(LMMS, "mmstar/mmstar", 1500, "mean_of_categories"),
    "ocrbench": Benchmark(LMMS, "ocrbench/ocrbench", 1000),
    "docvqa_val": Benchmark(LMMS, "docvqa/docvqa_val", 5349),
    "chartqa": Benchmark(LMMS, "chartqa/chartqa", 2500),
    "vstar_bench": Benchmark(LMMS, "vstar_bench/vstar_bench", 191),
    "realworldqa": Benchmark(LMMS, "realworldqa/realworldqa", 765),
    "mmvet": Benchmark(LMMS, "mmvet/mmvet", 218, judge=True),
}
VISUAL_COT_SETS = {
    "cub": 492,
    "docvqa": 888,
    "dude": 603,
    "flickr30k": 1546,
    "gqa": 978,
    "infographicsvqa": 360,
    "openimages": 945,
    "sroie": 686,
    "textcap": 853,
    "textvqa": 526,
    "visual7w": 1000,
    "vsr": 404,
}
BENCHMARKS: dict[str, Benchmark] = (
    _LMMS
    | {
        f"viscot_{name}": Benchmark(VISUAL_COT, name, questions, judge=True)
        for name, questions in VISUAL_COT_SETS.items()
    }
    | {
        f"viscot_{name}_brief": Benchmark(VISUAL_COT, name, questions, prompt={"after": BRIEF}, judge=True)
        for name, questions in VISUAL_COT_SETS.items()
    }
)
