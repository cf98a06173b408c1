"""Public data sets in their own formats, read into this package's conventions."""
