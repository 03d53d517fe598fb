"""Files and settings that nobody would write on purpose, and what each reader makes of
them.
"""
