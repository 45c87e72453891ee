"""What names in params.yaml stand for: models and benchmarks."""
