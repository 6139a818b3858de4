"""``everpool lab torture``."""
