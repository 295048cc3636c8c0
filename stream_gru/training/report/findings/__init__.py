"""What a log may show: pure rules on numbers, each with its evidence and what to try next."""
