"""What `cluster.doctor` looks at before a run. Each check is a function of settings in a process of its own, with a
limit: one that hangs or crashes is a finding, not the end of the command."""
