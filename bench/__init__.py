"""The harness: jobs, training, data, trunks, and the command line."""

__version__ = "0.1.0"
