"""How bundles are made: made-up series or history, and the fit."""
