"""What a run looks like: one self-contained page, made of plain JSON values."""
