"""The version and the notice, importable without loading anything else."""

__version__ = "0.1.0"
NOTICE = "Research use only, not a medical device."
"""Said by every bundle, report and page."""
SYNTHETIC_CT = "SYNTHETIC CT - NOT ACQUIRED"
"""Said by every picture and object of a volume that a model made of X-rays."""
RESEARCH_USE = "RESEARCH USE ONLY - not for diagnosis or treatment"
"""Said by every picture and object that leaves for a hospital."""
