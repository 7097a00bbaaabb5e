"""What is trained: `objectives` has every loss, `places` what losses must know of a batch beforehand, `masking` what is
hidden; `training_model` joins model and losses for an engine.
"""
