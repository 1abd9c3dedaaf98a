"""Data: data sets on the disk, splits, packs of resized images, and the batches read from them."""
