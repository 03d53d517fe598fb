"""Jobs on disk: what was asked for, how far it is, where its files lie."""
