"""Files for deployment."""
