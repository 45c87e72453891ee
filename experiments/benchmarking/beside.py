"""Published numbers that belong beside a cell of a recipe's table."""

from experiments.benchmarking.recipe import PublishedNumbers
from experiments.benchmarking.settings import Setting
from experiments.reports import published


def published_average(numbers: PublishedNumbers, setting: Setting) -> str:
    """What a paper prints as the mean over its benchmarks for this method and number of tokens; empty if nothing."""
    if setting.label in numbers.settings:
        return _one(numbers, setting, "setting", numbers.settings[setting.label])
    return _one(numbers, setting, "tokens", "" if setting.tokens is None else str(setting.tokens))


def published_cell(numbers: PublishedNumbers, setting: Setting, benchmark: str) -> str:
    """What a paper prints for this method on a benchmark; empty if nothing."""
    return _one(numbers, setting, "setting", numbers.benchmarks[benchmark])


def _one(numbers: PublishedNumbers, setting: Setting, column: str, value: str) -> str:
    names = numbers.methods
    method = names.get(f"{setting.method}/{setting.label}", names.get(setting.method, setting.method))
    table = published.read(numbers.file)
    found = table[(table["method"] == method) & (table["metric"] == numbers.metric) & (table[column] == value)]
    return found["value"].iloc[0] if len(found) and value else ""
