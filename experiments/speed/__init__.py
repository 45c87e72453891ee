"""What is timed by benchmark_selection, and against what."""
