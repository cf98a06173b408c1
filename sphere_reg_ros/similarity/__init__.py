"""Measures of agreement between an X-ray and a DRR, each with its derivative."""
