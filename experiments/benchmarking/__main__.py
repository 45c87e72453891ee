"""The command line for recipes that need no lmms-eval."""

from experiments.benchmarking.command import main

if __name__ == "__main__":
    main()
