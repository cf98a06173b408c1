"""The fused renderer for the CPU: compiled kernels, their adjoints and their torch operators."""
