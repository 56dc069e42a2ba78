"""What single commands of `rklu` do: bring a model, look at an installation, do a record's run again."""
