"""The map of the pipeline: `python -m experiments` prints the stages, their parameters and outputs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PIPELINE = Path("dvc.yaml")


def lines(stages: dict[str, Any]) -> Iterator[str]:
    """Two lines and one for each further output of every stage of dvc.yaml, in its order."""
    for name, stage in stages.items():
        once = stage.get("do", stage)
        outputs = [
            next(iter(out)) if isinstance(out, dict) else out
            for kind in ("outs", "metrics")
            for out in once.get(kind, [])
        ]
        sections = dict.fromkeys(parameter.split(".")[0] for parameter in once.get("params", []))
        yield f"{name:22}{once['desc']}"
        yield f"{'':22}{once['cmd']}"
        if sections:
            yield f"{'':22}params.yaml: {', '.join(sections)}"
        yield from (f"{'':22}-> {output}" for output in outputs)


def main() -> None:
    print("\n".join(lines(yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))["stages"])))


if __name__ == "__main__":
    main()
