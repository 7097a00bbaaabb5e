"""Workers on Ray, and the folder of a run."""
