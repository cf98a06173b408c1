"""The fused renderer for CUDA: Triton kernels, their adjoints and their torch operators."""
