"""What models are compared by: what they cost, how well they do, how far back they reach, and the usual claims."""
