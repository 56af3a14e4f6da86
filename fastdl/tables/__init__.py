"""Tables and array files in; features, targets and a split out."""
