"""Detection: candidates for lesions, each with one likelihood."""
