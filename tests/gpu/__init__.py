"""What is tried on a real GPU: `make gpu`."""
