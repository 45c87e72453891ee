"""What a method is, and what several methods choose with."""
