"""What the values of tensors say: moments and weights, measured in one pass over their blocks."""
