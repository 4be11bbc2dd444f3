"""The method as tensors in, tensors out: no queue, no database, no environment, nothing of the two rooms above."""
