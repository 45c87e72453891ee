"""Where visual tokens lie in an image, for methods that look at windows and neighbours."""

from pruning.engine.seen import Observed


def layout(seen: Observed) -> tuple[int, int, int]:
    """Frames, rows and columns of the visual tokens, frame by frame and row by row.

    Tokens that form no raster (LLaVA-NeXT's crops with their newlines) count as one row.
    """
    if not seen.rasters:
        return 1, 1, seen.num_visual
    rows, columns = seen.rasters[0]
    return len(seen.rasters), rows, columns
