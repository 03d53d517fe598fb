"""From a bundle to predictions: windows, restoring, predictors."""
