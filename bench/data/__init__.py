"""Data: what is on the disk, which pictures belong to which part, and packs that training reads."""
