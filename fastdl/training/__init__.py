"""Mini-batches, epochs, validation: what a training is made of."""
