"""Published benchmarks on real models: which there are, stored answers, scores, tables (docs/benchmarks.md)."""
