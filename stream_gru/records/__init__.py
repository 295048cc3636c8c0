"""What the output topics hold."""
