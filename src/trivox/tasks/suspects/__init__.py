"""Which labels of a dataset are probably wrong, by predictions that never saw them."""
