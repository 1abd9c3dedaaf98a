"""Training: the loop, checkpoints, device and precision, the feature cache, loggers, energy."""
