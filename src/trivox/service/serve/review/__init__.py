"""What people say of results: images to look at, decisions, corrected label maps."""
