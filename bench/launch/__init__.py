"""Launches: many workers, on one machine or many, that share the grid of one command."""
