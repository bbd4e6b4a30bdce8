"""What is measured: tasks, the child that encodes with an artifact's own bytes, and the suite a policy declares."""
