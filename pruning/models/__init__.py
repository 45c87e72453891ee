"""What is known about the supported models: their parts, what their vision towers give, their sizes and FLOPs."""
