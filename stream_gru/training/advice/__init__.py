"""What kind of series these are, and which recipe suits them."""
