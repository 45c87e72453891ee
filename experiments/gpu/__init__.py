"""What experiments/gpu_report measures: correctness on a device, and prefills of full-size models of random weights."""
