"""What the product does, one verb a file: `trivox.train` in Python, `trivox train` on
the command line.
"""
