"""Optimisers over poses: batched, differentiable, traced."""
