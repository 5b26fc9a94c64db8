"""Where a learning rate goes: torch's step rules, evaluated from what a file says."""
