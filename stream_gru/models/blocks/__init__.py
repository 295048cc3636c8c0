"""Blocks, one file each: what stands around, in front of and behind the cells."""
