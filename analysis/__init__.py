"""Statistics over what the experiments recorded; no plotting outside `analysis.figures`."""
