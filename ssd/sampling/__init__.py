"""Drawing many images, each with its own seed; compiling; pictures for people."""
