"""Rules R1 to R21, as pure decisions: where a partition begins, what is stored, what is read with care."""
