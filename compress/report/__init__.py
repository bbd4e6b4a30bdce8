"""What people read of a gate report: an HTML page, a model card, and views for the terminal."""
