"""What a training step sees: batches, their data, modes and clones."""
