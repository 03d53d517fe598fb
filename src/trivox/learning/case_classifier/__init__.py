"""Classifiers of a case, fitted on pooled features after training."""
