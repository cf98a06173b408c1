"""Digitally reconstructed radiographs and their pose Jacobians."""
