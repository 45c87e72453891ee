"""Write the testbed's questions: `python -m experiments.scenes`.

data/scenes/evaluation.parquet and validation.parquet; the same seed gives the same bytes. Every scene is asked one
question of each type and for a caption; answers are balanced within each type.
"""

import os
from pathlib import Path

import pyarrow.parquet
from datasets import Dataset

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.testbed.table import draw

FOLDER = Path("data/scenes")
SCENES = {"evaluation": 300, "validation": 60}


def write(dataset: Dataset, path: Path) -> None:
    """Write as parquet, under a temporary name first. Neighbouring rows share an image, which zstd stores once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pyarrow.parquet.write_table(
        dataset.data.table, part, compression="zstd", compression_level=12, use_dictionary=False
    )
    os.replace(part, path)


def write_splits(parameters: Parameters) -> None:
    """Both files."""
    for split, count in SCENES.items():
        write(draw(split, count, parameters.scenes.seed), FOLDER / f"{split}.parquet")


main = stage.command(__doc__, write_splits)

if __name__ == "__main__":
    main()
