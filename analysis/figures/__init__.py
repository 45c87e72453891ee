"""One module a figure: `draw(results)` reads committed CSV files of that folder and returns a matplotlib figure.

`INPUTS` names the files. `shared/style.py` fixes one look for all, first of all one colour, marker and label for
each method; `shared/panels.py` holds what several of them draw.
"""

import pkgutil


def names() -> list[str]:
    """Every figure there is."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
