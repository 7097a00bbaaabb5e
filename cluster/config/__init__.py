"""A run as typed settings (`fields`) and how options change them (`options`)."""
