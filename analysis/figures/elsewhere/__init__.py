"""Figures of what is measured on other machines and committed: no stage of the pipeline makes what they read.

Drawn by hand, each by `python -m analysis.figures.elsewhere.NAME [RESULTS [FIGURES]]`.
"""
