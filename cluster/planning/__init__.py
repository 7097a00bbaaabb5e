"""What `cluster.plan` is made of: batches of a recipe's sizes, the memory of a step counted without computing it, and
the time of a step measured on this machine."""
