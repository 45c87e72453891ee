"""How a method is run on an unmodified model: hooks, what a method sees, and a record of what it did."""
