"""Rigid motions, the C-arm camera, frames and units. One convention, see docs/architecture.md."""
