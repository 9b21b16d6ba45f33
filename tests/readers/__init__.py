"""Sources of every kind, whole, odd and broken."""
