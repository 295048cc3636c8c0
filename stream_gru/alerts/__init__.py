"""The control plane: anomalies in, alerts out, told once."""
