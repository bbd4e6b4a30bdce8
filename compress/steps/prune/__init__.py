"""Methods that make towers narrower or shallower, and make up for it in closed form."""
