"""Questions about a model itself: its attention, and choices that answer them instead of saving compute."""
