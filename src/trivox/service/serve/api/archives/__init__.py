"""Archives that scans are looked for in."""
