"""How a network is trained on a machine: the loop, checkpoints, the device, cached features, loggers, energy."""
