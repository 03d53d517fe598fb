"""Networks: layers, attention, U-Nets, hybrids; `registry` knows them by name."""
