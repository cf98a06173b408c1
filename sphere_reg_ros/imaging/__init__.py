"""CT and X-ray input, and simulated X-rays."""
