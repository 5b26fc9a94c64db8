"""Kernels for the optimizers; each equals `liontool.optim.reference` bit for bit in float32."""
