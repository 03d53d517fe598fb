"""What is made of logits, voxel by voxel."""
