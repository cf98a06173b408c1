"""Networks of the learned method and their files."""
