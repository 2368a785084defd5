"""One file a job that users run; each wires the rooms together and holds no arithmetic."""
