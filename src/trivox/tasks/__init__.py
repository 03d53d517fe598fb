"""What is learnt.

A task knows its targets, outputs, loss, metrics and results, and answers every verb.
"""
