"""Protocols that other programs speak already, answered from the same desk."""
