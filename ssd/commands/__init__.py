"""What the commands share: the parser, errors of one line, whole files."""
