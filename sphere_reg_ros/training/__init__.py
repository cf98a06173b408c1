"""Training of the learned method: data, losses, and the loop."""
