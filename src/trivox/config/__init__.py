"""The recipe: how to train.

Typed, frozen settings; presets are values of it, never subclasses.
"""
