"""One module a figure: `draw(results)` reads committed CSV files of that folder and returns a matplotlib figure.

Modules: attention_shift, attention_dispersion, accuracy_against_flops, accuracy_against_budget, kept_tokens,
visual_tokens_per_layer and training; `style` fixes what they share, first of all one colour, marker and label for each
method.
"""
