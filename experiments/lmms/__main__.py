"""The command line for all recipes, in the environment of `make setup-benchmarks`."""

from experiments.benchmarking.command import SOURCES, Source, main
from experiments.benchmarking.named import LMMS
from experiments.lmms import mmvet
from experiments.lmms.score import score
from experiments.lmms.tasks import TaskQuestions

if __name__ == "__main__":
    main(SOURCES | {LMMS: Source(TaskQuestions, score, mmvet.protocol())})
