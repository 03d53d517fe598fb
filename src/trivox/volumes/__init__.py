"""Volumes: an array and its place in the world, read from and written to the usual file
formats.
"""
