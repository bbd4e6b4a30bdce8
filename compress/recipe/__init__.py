"""What a recipe says: strict YAML in, a frozen `Recipe` out, every mistake at once with line and column."""
