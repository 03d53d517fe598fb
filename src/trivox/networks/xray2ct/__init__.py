"""The network that makes a volume of 0 to 8 X-rays."""
