"""What must hold, and the pure decision whether it does."""
