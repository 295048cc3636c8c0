"""Cells and blocks (one file each), the network that a configuration composes of them, and bundles on disk."""
