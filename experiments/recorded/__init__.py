"""What was recorded: finished cells, predictions and what they say, read back in one way."""
