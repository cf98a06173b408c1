"""Methods of others, each as its authors describe it, on this package's renderer."""
