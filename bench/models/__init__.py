"""Networks and how they behave: trunks, discriminator, freezing and batch-norm statistics."""
