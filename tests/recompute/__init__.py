"""A second computation of a study's figures, from its records and saved predictions alone: `python -m tests.recompute FOLDER`.

It imports nothing from bench, pretexts, downstream or results. Metrics, resamples, intervals, tests and Holm's correction are
written anew from docs/fairness.md, so that an error of the program is not repeated here.
"""
