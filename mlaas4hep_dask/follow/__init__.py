"""Follow: looks at runs and ends them, from the records in their folders alone."""
