"""GlimpsePrune, the learned method: a glimpse token, a predictor of what matters, their checkpoints and training."""
