"""From a fingerprint to a plan: pure arithmetic, no network is built."""
