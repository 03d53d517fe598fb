"""Evaluation in four storeys: metrics < conventions < folders < report."""
