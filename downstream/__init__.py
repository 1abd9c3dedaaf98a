"""Downstream tasks, one file each: a file placed here is found by its name."""
