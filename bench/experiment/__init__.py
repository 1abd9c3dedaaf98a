"""Experiments, from a configuration to records: grid, pretraining, fine-tuning, tuning, studies, plans, reproduction."""
