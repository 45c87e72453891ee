"""params.yaml: its sections, and checks before anything runs."""
