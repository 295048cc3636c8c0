"""How anomalous a reading is, and whether someone should be told."""
