"""What a page shows of each section of a metrics.json."""
