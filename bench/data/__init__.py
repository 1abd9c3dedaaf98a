"""Data: what is on the disk, which images belong to which split, packs and the batches read from them."""
