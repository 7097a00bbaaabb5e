"""The page of `idc.demo`: a server for this machine alone, and the files that it gives a browser."""
