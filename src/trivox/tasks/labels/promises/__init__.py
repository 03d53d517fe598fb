"""What held-out cases let a model promise: volumes within bounds, few voxels and lesions
missed.
"""
